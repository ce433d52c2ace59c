package dataplane

//go:generate go tool bpf2go -go-package dataplane -target bpfel -tags linux -cflags "-O2 -g -Wall -Werror -mllvm -no-stack-coloring -I../../../internal/steer/bpf -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" director bpf/director.bpf.c
//go:generate go tool bpf2go -go-package dataplane -target bpfel -tags linux -cflags "-O2 -g -Wall -Werror -mllvm -no-stack-coloring -I../../../internal/steer/bpf -I../dyntcp/wire/bpf -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" agent bpf/agent.bpf.c
