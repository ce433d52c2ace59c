package kernel

//go:generate go tool bpf2go -go-package kernel -output-suffix _test -target bpfel -tags linux -cflags "-O2 -g -Wall -Wno-unused-function -Werror -mllvm -no-stack-coloring -I../wire/bpf -I../../dataplane/bpf -I../../../../internal/steer/bpf -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" floor bpf/floor.bpf.c
