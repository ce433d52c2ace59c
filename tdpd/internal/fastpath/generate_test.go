package fastpath

//go:generate go tool bpf2go -go-package fastpath -output-suffix _test -target bpfel -tags linux -cflags "-O2 -g -Wall -Werror -mllvm -no-stack-coloring -Ibpf -I../../../internal/steer/bpf -I../vips/bpf -I/usr/include/x86_64-linux-gnu -I/usr/include/aarch64-linux-gnu" bench bpf/bench.bpf.c
