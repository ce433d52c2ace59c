/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * How programs write to their stack, so that Linux 6.1 loads them for who has CAP_BPF but not CAP_PERFMON. A value that its
 * verifier knows bounds of (any that is no longer than 4 bytes), written to the begin of an aligned 8-byte word, it takes for a
 * spilled register, and lets nobody write a part of that word until a helper has read it: check_stack_write_fixed_off, "attempt to
 * corrupt spilled pointer on stack". So keys and values are written by whole words (WORD), what is smaller has a word of its own
 * (ALONE) or is constant and static, and -no-stack-coloring keeps two locals from sharing a place. Else it is a matter of luck,
 * of what clang puts beside what.
 */
#ifndef MANYCAST_WORDS_H
#define MANYCAST_WORDS_H

/* Two fields of 4 bytes, as they follow each other in memory (little-endian). */
#define WORD(first, second) ((__u32)(first) | (__u64)(second) << 32)
/* Two fields of 2 bytes. */
#define HALF(first, second) ((__u16)(first) | (__u32)(second) << 16)

#define ALONE __attribute__((aligned(8)))

#endif
