package kernel

//go:generate go tool bpf2go -go-package kernel -target bpfel -tags linux -cflags "-O2 -g -Wall -Werror -mllvm -no-stack-coloring -I../../../internal/steer/bpf -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" igmpd bpf/igmpd.bpf.c
