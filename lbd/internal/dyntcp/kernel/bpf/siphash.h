/* SPDX-License-Identifier: Dual BSD/GPL */
/* SipHash-2-4 (Aumasson, Bernstein 2012) of 16 bytes: a pseudorandom function. Who does not know the key cannot tell what it gives for
 * an input from chance, however many of its outputs for others it has seen. The kernel's bpf_get_prandom_u32 is not so: it is linear. */
#ifndef MANYCAST_SIPHASH_H
#define MANYCAST_SIPHASH_H

#define ROTATE(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

#define SIPROUND                                                             \
	do {                                                                 \
		v0 += v1;                                                    \
		v1 = ROTATE(v1, 13) ^ v0;                                    \
		v0 = ROTATE(v0, 32);                                         \
		v2 += v3;                                                    \
		v3 = ROTATE(v3, 16) ^ v2;                                    \
		v0 += v3;                                                    \
		v3 = ROTATE(v3, 21) ^ v0;                                    \
		v2 += v1;                                                    \
		v1 = ROTATE(v1, 17) ^ v2;                                    \
		v2 = ROTATE(v2, 32);                                         \
	} while (0)

#define SIPWORD(m)                                                           \
	do {                                                                 \
		v3 ^= (m);                                                   \
		SIPROUND;                                                    \
		SIPROUND;                                                    \
		v0 ^= (m);                                                   \
	} while (0)

static __noinline __u64 siphash(__u64 k0, __u64 k1, __u64 first, __u64 second)
{
	__u64 v0 = k0 ^ 0x736f6d6570736575ULL, v1 = k1 ^ 0x646f72616e646f6dULL;
	__u64 v2 = k0 ^ 0x6c7967656e657261ULL, v3 = k1 ^ 0x7465646279746573ULL;

	SIPWORD(first);
	SIPWORD(second);
	SIPWORD(16ULL << 56); /* the length */
	v2 ^= 0xff;
	SIPROUND;
	SIPROUND;
	SIPROUND;
	SIPROUND;
	return v0 ^ v1 ^ v2 ^ v3;
}

#endif
