/* SPDX-License-Identifier: Dual BSD/GPL */
/* Marks of packets between our devices: what they are in the upper 8 bits, of what was forwarded the VNI in the others. */
#ifndef MANYCAST_MARK_H
#define MANYCAST_MARK_H

#define MARK(what, vni) ((__u32)(what) << 24 | (vni))
#define MARK_OF(mark) ((mark) >> 24)
#define FORWARDED 0xb7 /* by another server */
#define HELD 0xb8
#define LET_IN 0xb9	/* by Inject */
#define RELEASED 0xba	/* by Release */

#endif
