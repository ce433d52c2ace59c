package marking

//go:generate go tool bpf2go -go-package marking -target bpfel -tags linux -cflags "-O2 -g -Wall -Werror -mllvm -no-stack-coloring -I../../../internal/steer/bpf -I../vips/bpf -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" mark bpf/mark.bpf.c
