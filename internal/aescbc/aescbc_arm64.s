//go:build !purego

#include "textflag.h"

// func subWord(w uint32) uint32
//
// All four words of V0 are w, so that the rotation of rows changes nothing.
TEXT ·subWord(SB), NOSPLIT, $0-12
	MOVWU w+0(FP), R0
	VDUP R0, V0.S4
	VEOR V1.B16, V1.B16, V1.B16
	AESE V1.B16, V0.B16
	VMOV V0.S[0], R0
	MOVW R0, ret+8(FP)
	RET

// func invertKeys(decrypt, encrypt *roundKeys)
TEXT ·invertKeys(SB), NOSPLIT, $0-16
	MOVD decrypt+0(FP), R0
	MOVD encrypt+8(FP), R1
	ADD $224, R1, R2
	VLD1 (R2), [V0.B16]
	VST1.P [V0.B16], 16(R0)
	MOVD $13, R3
invert:
	SUB $16, R2
	VLD1 (R2), [V0.B16]
	AESIMC V0.B16, V0.B16
	VST1.P [V0.B16], 16(R0)
	SUBS $1, R3
	BNE invert
	VLD1 (R1), [V0.B16]
	VST1 [V0.B16], (R0)
	RET

// The round keys are in V16 to V30.
#define LOAD_KEYS(from) \
	VLD1.P 64(from), [V16.B16, V17.B16, V18.B16, V19.B16]; \
	VLD1.P 64(from), [V20.B16, V21.B16, V22.B16, V23.B16]; \
	VLD1.P 64(from), [V24.B16, V25.B16, V26.B16, V27.B16]; \
	VLD1 (from), [V28.B16, V29.B16, V30.B16]

#define ENCRYPT(key, block) \
	AESE key.B16, block.B16; \
	AESMC block.B16, block.B16

#define DECRYPT(key, block) \
	AESD key.B16, block.B16; \
	AESIMC block.B16, block.B16

// All rounds but the last one, whose parts are AESE or AESD with V29, and V30.
#define ROUNDS_ONE(round, block) \
	round(V16, block); \
	round(V17, block); \
	round(V18, block); \
	round(V19, block); \
	round(V20, block); \
	round(V21, block); \
	round(V22, block); \
	round(V23, block); \
	round(V24, block); \
	round(V25, block); \
	round(V26, block); \
	round(V27, block); \
	round(V28, block)

#define ROUND_EIGHT(round, key) \
	round(key, V0); \
	round(key, V1); \
	round(key, V2); \
	round(key, V3); \
	round(key, V4); \
	round(key, V5); \
	round(key, V6); \
	round(key, V7)

#define ROUNDS_EIGHT(round) \
	ROUND_EIGHT(round, V16); \
	ROUND_EIGHT(round, V17); \
	ROUND_EIGHT(round, V18); \
	ROUND_EIGHT(round, V19); \
	ROUND_EIGHT(round, V20); \
	ROUND_EIGHT(round, V21); \
	ROUND_EIGHT(round, V22); \
	ROUND_EIGHT(round, V23); \
	ROUND_EIGHT(round, V24); \
	ROUND_EIGHT(round, V25); \
	ROUND_EIGHT(round, V26); \
	ROUND_EIGHT(round, V27); \
	ROUND_EIGHT(round, V28)

// func encryptBlocks(keys *roundKeys, dst, src *byte, blocks int, iv *IV)
TEXT ·encryptBlocks(SB), NOSPLIT, $0-40
	MOVD keys+0(FP), R0
	MOVD dst+8(FP), R1
	MOVD src+16(FP), R2
	MOVD blocks+24(FP), R3
	MOVD iv+32(FP), R4
	VLD1 (R4), [V0.B16]
	LOAD_KEYS(R0)
encrypt:
	VLD1.P 16(R2), [V1.B16]
	VEOR V1.B16, V0.B16, V0.B16
	ROUNDS_ONE(ENCRYPT, V0)
	AESE V29.B16, V0.B16
	VEOR V30.B16, V0.B16, V0.B16
	VST1.P [V0.B16], 16(R1)
	SUBS $1, R3
	BNE encrypt
	VST1 [V0.B16], (R4)
	RET

// AESD takes a register as its key and not memory, so what a block is chained to is
// added after the last round.
#define DECRYPT_LAST(chained, block) \
	AESD V29.B16, block.B16; \
	VEOR V30.B16, block.B16, block.B16; \
	VEOR chained.B16, block.B16, block.B16

// func decryptBlocks(keys *roundKeys, dst, src *byte, blocks int, iv *IV)
TEXT ·decryptBlocks(SB), NOSPLIT, $0-40
	MOVD keys+0(FP), R0
	MOVD dst+8(FP), R1
	MOVD src+16(FP), R2
	MOVD blocks+24(FP), R3
	MOVD iv+32(FP), R4
	VLD1 (R4), [V31.B16]
	LOAD_KEYS(R0)
	SUBS $8, R3
	BLT decryptTail
decryptEight:
	MOVD R2, R5
	VLD1.P 64(R2), [V0.B16, V1.B16, V2.B16, V3.B16]
	VLD1.P 64(R2), [V4.B16, V5.B16, V6.B16, V7.B16]
	ROUNDS_EIGHT(DECRYPT)
	VLD1.P 64(R5), [V8.B16, V9.B16, V10.B16, V11.B16]
	VLD1 (R5), [V12.B16, V13.B16, V14.B16, V15.B16]
	DECRYPT_LAST(V31, V0)
	DECRYPT_LAST(V8, V1)
	DECRYPT_LAST(V9, V2)
	DECRYPT_LAST(V10, V3)
	DECRYPT_LAST(V11, V4)
	DECRYPT_LAST(V12, V5)
	DECRYPT_LAST(V13, V6)
	DECRYPT_LAST(V14, V7)
	VMOV V15.B16, V31.B16
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R1)
	VST1.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R1)
	SUBS $8, R3
	BGE decryptEight
decryptTail:
	ADDS $8, R3
	BEQ decryptDone
decryptOne:
	VLD1.P 16(R2), [V0.B16]
	VMOV V0.B16, V8.B16
	ROUNDS_ONE(DECRYPT, V0)
	DECRYPT_LAST(V31, V0)
	VST1.P [V0.B16], 16(R1)
	VMOV V8.B16, V31.B16
	SUBS $1, R3
	BNE decryptOne
decryptDone:
	VST1 [V31.B16], (R4)
	RET

// What was encrypted is compared with ciphertext; V31 collects the differences.
#define COMPARE(ciphertext, block) \
	AESE V29.B16, block.B16; \
	VEOR V30.B16, block.B16, block.B16; \
	VEOR ciphertext.B16, block.B16, block.B16; \
	VORR block.B16, V31.B16, V31.B16

// func differ(keys *roundKeys, plain, ciphertext *byte, blocks int, iv *IV) uint64
//
// No register is left for what the next block is chained to, which stays in the memory of
// iv. V14 is loaded again after that was added.
TEXT ·differ(SB), NOSPLIT, $0-48
	MOVD keys+0(FP), R0
	MOVD plain+8(FP), R1
	MOVD ciphertext+16(FP), R2
	MOVD blocks+24(FP), R3
	MOVD iv+32(FP), R4
	VEOR V31.B16, V31.B16, V31.B16
	LOAD_KEYS(R0)
	SUBS $8, R3
	BLT differTail
differEight:
	VLD1.P 64(R1), [V0.B16, V1.B16, V2.B16, V3.B16]
	VLD1.P 64(R1), [V4.B16, V5.B16, V6.B16, V7.B16]
	VLD1.P 64(R2), [V8.B16, V9.B16, V10.B16, V11.B16]
	VLD1.P 64(R2), [V12.B16, V13.B16, V14.B16, V15.B16]
	VEOR V8.B16, V1.B16, V1.B16
	VEOR V9.B16, V2.B16, V2.B16
	VEOR V10.B16, V3.B16, V3.B16
	VEOR V11.B16, V4.B16, V4.B16
	VEOR V12.B16, V5.B16, V5.B16
	VEOR V13.B16, V6.B16, V6.B16
	VEOR V14.B16, V7.B16, V7.B16
	VLD1 (R4), [V14.B16]
	VEOR V14.B16, V0.B16, V0.B16
	VST1 [V15.B16], (R4)
	SUB $32, R2, R5
	VLD1 (R5), [V14.B16]
	ROUNDS_EIGHT(ENCRYPT)
	COMPARE(V8, V0)
	COMPARE(V9, V1)
	COMPARE(V10, V2)
	COMPARE(V11, V3)
	COMPARE(V12, V4)
	COMPARE(V13, V5)
	COMPARE(V14, V6)
	COMPARE(V15, V7)
	SUBS $8, R3
	BGE differEight
differTail:
	ADDS $8, R3
	BEQ differDone
differOne:
	VLD1.P 16(R1), [V0.B16]
	VLD1.P 16(R2), [V8.B16]
	VLD1 (R4), [V9.B16]
	VST1 [V8.B16], (R4)
	VEOR V9.B16, V0.B16, V0.B16
	ROUNDS_ONE(ENCRYPT, V0)
	COMPARE(V8, V0)
	SUBS $1, R3
	BNE differOne
differDone:
	VMOV V31.D[0], R5
	VMOV V31.D[1], R6
	ORR R6, R5, R5
	MOVD R5, ret+40(FP)
	RET

// Lane i is in register Vi. R0 points to the eight keys of a round, which go through V16
// to V23.
#define LOAD_LANES \
	VLD1.P 64(R0), [V16.B16, V17.B16, V18.B16, V19.B16]; \
	VLD1.P 64(R0), [V20.B16, V21.B16, V22.B16, V23.B16]

#define LANES_ROUND \
	LOAD_LANES; \
	ENCRYPT(V16, V0); \
	ENCRYPT(V17, V1); \
	ENCRYPT(V18, V2); \
	ENCRYPT(V19, V3); \
	ENCRYPT(V20, V4); \
	ENCRYPT(V21, V5); \
	ENCRYPT(V22, V6); \
	ENCRYPT(V23, V7)

#define LANE_BEGIN(pointer, chained) \
	VLD1 (pointer), [V24.B16]; \
	VEOR V24.B16, chained.B16, chained.B16

#define LANE_END(pointer, step, key, chained) \
	VEOR key.B16, chained.B16, chained.B16; \
	VST1 [chained.B16], (pointer); \
	MOVD step(R1), R3; \
	ADD R3, pointer

// func encryptLanes(s *laneSet, blocks int)
//
// The offsets in laneSet: at 0, step 64, iv 128, keys 256.
TEXT ·encryptLanes(SB), NOSPLIT, $0-16
	MOVD s+0(FP), R1
	MOVD blocks+8(FP), R2
	MOVD 0(R1), R4
	MOVD 8(R1), R5
	MOVD 16(R1), R6
	MOVD 24(R1), R7
	MOVD 32(R1), R8
	MOVD 40(R1), R9
	MOVD 48(R1), R10
	MOVD 56(R1), R11
	ADD $128, R1, R12
	VLD1.P 64(R12), [V0.B16, V1.B16, V2.B16, V3.B16]
	VLD1.P 64(R12), [V4.B16, V5.B16, V6.B16, V7.B16]
lanes:
	MOVD R12, R0
	LANE_BEGIN(R4, V0)
	LANE_BEGIN(R5, V1)
	LANE_BEGIN(R6, V2)
	LANE_BEGIN(R7, V3)
	LANE_BEGIN(R8, V4)
	LANE_BEGIN(R9, V5)
	LANE_BEGIN(R10, V6)
	LANE_BEGIN(R11, V7)
	LANES_ROUND
	LANES_ROUND
	LANES_ROUND
	LANES_ROUND
	LANES_ROUND
	LANES_ROUND
	LANES_ROUND
	LANES_ROUND
	LANES_ROUND
	LANES_ROUND
	LANES_ROUND
	LANES_ROUND
	LANES_ROUND
	LOAD_LANES
	AESE V16.B16, V0.B16
	AESE V17.B16, V1.B16
	AESE V18.B16, V2.B16
	AESE V19.B16, V3.B16
	AESE V20.B16, V4.B16
	AESE V21.B16, V5.B16
	AESE V22.B16, V6.B16
	AESE V23.B16, V7.B16
	LOAD_LANES
	LANE_END(R4, 64, V16, V0)
	LANE_END(R5, 72, V17, V1)
	LANE_END(R6, 80, V18, V2)
	LANE_END(R7, 88, V19, V3)
	LANE_END(R8, 96, V20, V4)
	LANE_END(R9, 104, V21, V5)
	LANE_END(R10, 112, V22, V6)
	LANE_END(R11, 120, V23, V7)
	SUBS $1, R2
	BNE lanes
	ADD $128, R1, R12
	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R12)
	VST1.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R12)
	RET
