package steer

//go:generate go tool bpf2go -go-package steer -output-suffix _test -target bpfel -cflags "-O2 -g -Wall -Werror -mllvm -no-stack-coloring -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" lookup bpf/lookup.bpf.c
