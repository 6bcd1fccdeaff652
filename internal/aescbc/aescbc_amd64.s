//go:build !purego

#include "textflag.h"

// func subWord(w uint32) uint32
TEXT ·subWord(SB), NOSPLIT, $0-12
	MOVL w+0(FP), AX
	VMOVD AX, X0
	VPSHUFD $0, X0, X0
	VAESKEYGENASSIST $0, X0, X0
	VMOVD X0, AX
	MOVL AX, ret+8(FP)
	RET

// func invertKeys(decrypt, encrypt *roundKeys)
TEXT ·invertKeys(SB), NOSPLIT, $0-16
	MOVQ decrypt+0(FP), DI
	MOVQ encrypt+8(FP), SI
	VMOVDQU 224(SI), X0
	VMOVDQU X0, (DI)
	VMOVDQU (SI), X0
	VMOVDQU X0, 224(DI)
	ADDQ $208, SI
	MOVQ $13, CX
invert:
	ADDQ $16, DI
	VMOVDQU (SI), X0
	VAESIMC X0, X0
	VMOVDQU X0, (DI)
	SUBQ $16, SI
	DECQ CX
	JNZ invert
	RET

// func encryptBlocks(keys *roundKeys, dst, src *byte, blocks int, iv *IV)
//
// Each block waits for the one before, so all that counts is the latency of a round. The
// keys stay in registers.
TEXT ·encryptBlocks(SB), NOSPLIT, $0-40
	MOVQ keys+0(FP), AX
	MOVQ dst+8(FP), DI
	MOVQ src+16(FP), SI
	MOVQ blocks+24(FP), CX
	MOVQ iv+32(FP), DX
	VMOVDQU (DX), X0
	VMOVDQU 16(AX), X2
	VMOVDQU 32(AX), X3
	VMOVDQU 48(AX), X4
	VMOVDQU 64(AX), X5
	VMOVDQU 80(AX), X6
	VMOVDQU 96(AX), X7
	VMOVDQU 112(AX), X8
	VMOVDQU 128(AX), X9
	VMOVDQU 144(AX), X10
	VMOVDQU 160(AX), X11
	VMOVDQU 176(AX), X12
	VMOVDQU 192(AX), X13
	VMOVDQU 208(AX), X14
	VMOVDQU 224(AX), X15
encrypt:
	VMOVDQU (SI), X1
	VPXOR (AX), X1, X1
	VPXOR X1, X0, X0
	VAESENC X2, X0, X0
	VAESENC X3, X0, X0
	VAESENC X4, X0, X0
	VAESENC X5, X0, X0
	VAESENC X6, X0, X0
	VAESENC X7, X0, X0
	VAESENC X8, X0, X0
	VAESENC X9, X0, X0
	VAESENC X10, X0, X0
	VAESENC X11, X0, X0
	VAESENC X12, X0, X0
	VAESENC X13, X0, X0
	VAESENC X14, X0, X0
	VAESENCLAST X15, X0, X0
	VMOVDQU X0, (DI)
	ADDQ $16, SI
	ADDQ $16, DI
	DECQ CX
	JNZ encrypt
	VMOVDQU X0, (DX)
	VZEROUPPER
	RET

// Eight blocks in X0 to X7, a round key in X8.
#define DECRYPT_ROUND(offset) \
	VMOVDQU offset(AX), X8; \
	VAESDEC X8, X0, X0; \
	VAESDEC X8, X1, X1; \
	VAESDEC X8, X2, X2; \
	VAESDEC X8, X3, X3; \
	VAESDEC X8, X4, X4; \
	VAESDEC X8, X5, X5; \
	VAESDEC X8, X6, X6; \
	VAESDEC X8, X7, X7

#define ENCRYPT_ROUND(offset) \
	VMOVDQU offset(AX), X8; \
	VAESENC X8, X0, X0; \
	VAESENC X8, X1, X1; \
	VAESENC X8, X2, X2; \
	VAESENC X8, X3, X3; \
	VAESENC X8, X4, X4; \
	VAESENC X8, X5, X5; \
	VAESENC X8, X6, X6; \
	VAESENC X8, X7, X7

#define ROUNDS(round) \
	round(16); \
	round(32); \
	round(48); \
	round(64); \
	round(80); \
	round(96); \
	round(112); \
	round(128); \
	round(144); \
	round(160); \
	round(176); \
	round(192); \
	round(208)

// The last round of a block adds what it is chained to together with the key in X8.
#define DECRYPT_LAST(chained, block) \
	VPXOR chained, X8, X9; \
	VAESDECLAST X9, block, block

// func decryptBlocks(keys *roundKeys, dst, src *byte, blocks int, iv *IV)
TEXT ·decryptBlocks(SB), NOSPLIT, $0-40
	MOVQ keys+0(FP), AX
	MOVQ dst+8(FP), DI
	MOVQ src+16(FP), SI
	MOVQ blocks+24(FP), CX
	MOVQ iv+32(FP), DX
	VMOVDQU (DX), X15
	SUBQ $8, CX
	JL decryptTail
decryptEight:
	VMOVDQU (AX), X8
	VPXOR (SI), X8, X0
	VPXOR 16(SI), X8, X1
	VPXOR 32(SI), X8, X2
	VPXOR 48(SI), X8, X3
	VPXOR 64(SI), X8, X4
	VPXOR 80(SI), X8, X5
	VPXOR 96(SI), X8, X6
	VPXOR 112(SI), X8, X7
	ROUNDS(DECRYPT_ROUND)
	VMOVDQU 224(AX), X8
	DECRYPT_LAST(X15, X0)
	DECRYPT_LAST((SI), X1)
	DECRYPT_LAST(16(SI), X2)
	DECRYPT_LAST(32(SI), X3)
	DECRYPT_LAST(48(SI), X4)
	DECRYPT_LAST(64(SI), X5)
	DECRYPT_LAST(80(SI), X6)
	DECRYPT_LAST(96(SI), X7)
	VMOVDQU 112(SI), X15
	VMOVDQU X0, (DI)
	VMOVDQU X1, 16(DI)
	VMOVDQU X2, 32(DI)
	VMOVDQU X3, 48(DI)
	VMOVDQU X4, 64(DI)
	VMOVDQU X5, 80(DI)
	VMOVDQU X6, 96(DI)
	VMOVDQU X7, 112(DI)
	ADDQ $128, SI
	ADDQ $128, DI
	SUBQ $8, CX
	JGE decryptEight
decryptTail:
	ADDQ $8, CX
	JZ decryptDone
decryptOne:
	VMOVDQU (SI), X10
	VPXOR (AX), X10, X0
	VAESDEC 16(AX), X0, X0
	VAESDEC 32(AX), X0, X0
	VAESDEC 48(AX), X0, X0
	VAESDEC 64(AX), X0, X0
	VAESDEC 80(AX), X0, X0
	VAESDEC 96(AX), X0, X0
	VAESDEC 112(AX), X0, X0
	VAESDEC 128(AX), X0, X0
	VAESDEC 144(AX), X0, X0
	VAESDEC 160(AX), X0, X0
	VAESDEC 176(AX), X0, X0
	VAESDEC 192(AX), X0, X0
	VAESDEC 208(AX), X0, X0
	VMOVDQU 224(AX), X8
	DECRYPT_LAST(X15, X0)
	VMOVDQU X0, (DI)
	VMOVDQU X10, X15
	ADDQ $16, SI
	ADDQ $16, DI
	DECQ CX
	JNZ decryptOne
decryptDone:
	VMOVDQU X15, (DX)
	VZEROUPPER
	RET

// What was encrypted is compared with ciphertext; X14 collects the differences.
#define COMPARE(block, ciphertext) \
	VPXOR ciphertext, block, block; \
	VPOR block, X14, X14

// func differ(keys *roundKeys, plain, ciphertext *byte, blocks int, iv *IV) uint64
TEXT ·differ(SB), NOSPLIT, $0-48
	MOVQ keys+0(FP), AX
	MOVQ plain+8(FP), DI
	MOVQ ciphertext+16(FP), SI
	MOVQ blocks+24(FP), CX
	MOVQ iv+32(FP), DX
	VMOVDQU (DX), X15
	VPXOR X14, X14, X14
	SUBQ $8, CX
	JL differTail
differEight:
	VMOVDQU (AX), X8
	VPXOR (DI), X8, X0
	VPXOR 16(DI), X8, X1
	VPXOR 32(DI), X8, X2
	VPXOR 48(DI), X8, X3
	VPXOR 64(DI), X8, X4
	VPXOR 80(DI), X8, X5
	VPXOR 96(DI), X8, X6
	VPXOR 112(DI), X8, X7
	VPXOR X15, X0, X0
	VPXOR (SI), X1, X1
	VPXOR 16(SI), X2, X2
	VPXOR 32(SI), X3, X3
	VPXOR 48(SI), X4, X4
	VPXOR 64(SI), X5, X5
	VPXOR 80(SI), X6, X6
	VPXOR 96(SI), X7, X7
	ROUNDS(ENCRYPT_ROUND)
	VMOVDQU 224(AX), X8
	VAESENCLAST X8, X0, X0
	VAESENCLAST X8, X1, X1
	VAESENCLAST X8, X2, X2
	VAESENCLAST X8, X3, X3
	VAESENCLAST X8, X4, X4
	VAESENCLAST X8, X5, X5
	VAESENCLAST X8, X6, X6
	VAESENCLAST X8, X7, X7
	COMPARE(X0, (SI))
	COMPARE(X1, 16(SI))
	COMPARE(X2, 32(SI))
	COMPARE(X3, 48(SI))
	COMPARE(X4, 64(SI))
	COMPARE(X5, 80(SI))
	COMPARE(X6, 96(SI))
	COMPARE(X7, 112(SI))
	VMOVDQU 112(SI), X15
	ADDQ $128, SI
	ADDQ $128, DI
	SUBQ $8, CX
	JGE differEight
differTail:
	ADDQ $8, CX
	JZ differDone
differOne:
	VPXOR (DI), X15, X0
	VPXOR (AX), X0, X0
	VAESENC 16(AX), X0, X0
	VAESENC 32(AX), X0, X0
	VAESENC 48(AX), X0, X0
	VAESENC 64(AX), X0, X0
	VAESENC 80(AX), X0, X0
	VAESENC 96(AX), X0, X0
	VAESENC 112(AX), X0, X0
	VAESENC 128(AX), X0, X0
	VAESENC 144(AX), X0, X0
	VAESENC 160(AX), X0, X0
	VAESENC 176(AX), X0, X0
	VAESENC 192(AX), X0, X0
	VAESENC 208(AX), X0, X0
	VAESENCLAST 224(AX), X0, X0
	VMOVDQU (SI), X15
	COMPARE(X0, X15)
	ADDQ $16, SI
	ADDQ $16, DI
	DECQ CX
	JNZ differOne
differDone:
	VMOVDQU X15, (DX)
	VPSRLDQ $8, X14, X0
	VPOR X0, X14, X14
	VMOVQ X14, AX
	VZEROUPPER
	MOVQ AX, ret+40(FP)
	RET

// Lane i is in register Xi; AX points to the eight keys of a round.
#define LANES_ROUND(offset) \
	VAESENC offset+0(AX), X0, X0; \
	VAESENC offset+16(AX), X1, X1; \
	VAESENC offset+32(AX), X2, X2; \
	VAESENC offset+48(AX), X3, X3; \
	VAESENC offset+64(AX), X4, X4; \
	VAESENC offset+80(AX), X5, X5; \
	VAESENC offset+96(AX), X6, X6; \
	VAESENC offset+112(AX), X7, X7

#define LANE_BEGIN(pointer, key, chained) \
	VMOVDQU (pointer), X8; \
	VPXOR key(AX), X8, X8; \
	VPXOR X8, chained, chained

#define LANE_END(pointer, key, step, chained) \
	VAESENCLAST key(AX), chained, chained; \
	VMOVDQU chained, (pointer); \
	ADDQ step(BX), pointer

// func encryptLanes(s *laneSet, blocks int)
//
// The offsets in laneSet: at 0, step 64, iv 128, keys 256.
TEXT ·encryptLanes(SB), NOSPLIT, $0-16
	MOVQ s+0(FP), BX
	MOVQ blocks+8(FP), CX
	LEAQ 256(BX), AX
	MOVQ 0(BX), R8
	MOVQ 8(BX), R9
	MOVQ 16(BX), R10
	MOVQ 24(BX), R11
	MOVQ 32(BX), R12
	MOVQ 40(BX), R13
	MOVQ 48(BX), SI
	MOVQ 56(BX), DI
	VMOVDQU 128(BX), X0
	VMOVDQU 144(BX), X1
	VMOVDQU 160(BX), X2
	VMOVDQU 176(BX), X3
	VMOVDQU 192(BX), X4
	VMOVDQU 208(BX), X5
	VMOVDQU 224(BX), X6
	VMOVDQU 240(BX), X7
lanes:
	LANE_BEGIN(R8, 0, X0)
	LANE_BEGIN(R9, 16, X1)
	LANE_BEGIN(R10, 32, X2)
	LANE_BEGIN(R11, 48, X3)
	LANE_BEGIN(R12, 64, X4)
	LANE_BEGIN(R13, 80, X5)
	LANE_BEGIN(SI, 96, X6)
	LANE_BEGIN(DI, 112, X7)
	LANES_ROUND(128)
	LANES_ROUND(256)
	LANES_ROUND(384)
	LANES_ROUND(512)
	LANES_ROUND(640)
	LANES_ROUND(768)
	LANES_ROUND(896)
	LANES_ROUND(1024)
	LANES_ROUND(1152)
	LANES_ROUND(1280)
	LANES_ROUND(1408)
	LANES_ROUND(1536)
	LANES_ROUND(1664)
	LANE_END(R8, 1792, 64, X0)
	LANE_END(R9, 1808, 72, X1)
	LANE_END(R10, 1824, 80, X2)
	LANE_END(R11, 1840, 88, X3)
	LANE_END(R12, 1856, 96, X4)
	LANE_END(R13, 1872, 104, X5)
	LANE_END(SI, 1888, 112, X6)
	LANE_END(DI, 1904, 120, X7)
	DECQ CX
	JNZ lanes
	VMOVDQU X0, 128(BX)
	VMOVDQU X1, 144(BX)
	VMOVDQU X2, 160(BX)
	VMOVDQU X3, 176(BX)
	VMOVDQU X4, 192(BX)
	VMOVDQU X5, 208(BX)
	VMOVDQU X6, 224(BX)
	VMOVDQU X7, 240(BX)
	VZEROUPPER
	RET
