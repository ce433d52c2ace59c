package kernel

//go:generate go tool bpf2go -go-package kernel -target bpfel -tags linux -cflags "-O2 -g -Wall -Werror -mllvm -no-stack-coloring -I../wire/bpf -I../../dataplane/bpf -I../../../../internal/steer/bpf -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" client bpf/client.bpf.c
//go:generate go tool bpf2go -go-package kernel -target bpfel -tags linux -cflags "-O2 -g -Wall -Werror -mllvm -no-stack-coloring -I../wire/bpf -I../../dataplane/bpf -I../../../../internal/steer/bpf -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" server bpf/server.bpf.c
//go:generate go tool bpf2go -go-package kernel -target bpfel -tags linux -cflags "-O2 -g -Wall -Werror -mllvm -no-stack-coloring -I../wire/bpf -I../../dataplane/bpf -I../../../../internal/steer/bpf -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" listeners bpf/listeners.bpf.c
