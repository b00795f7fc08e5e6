#include "textflag.h"

// func gramTile(dots *[12]float32, rows, cols *float32, stride int)
//
// dots[r*4+c] = rows[r] . cols[c] for 3 rows and 4 columns, stride a multiple
// of 8. V0..V11 accumulate, V16..V18 hold the rows, V20..V23 the columns.
TEXT ·gramTile(SB), NOSPLIT, $0-32
	MOVD dots+0(FP), R0
	MOVD rows+8(FP), R1
	MOVD cols+16(FP), R4
	MOVD stride+24(FP), R8
	ADD  R8<<2, R1, R2
	ADD  R8<<2, R2, R3
	ADD  R8<<2, R4, R5
	ADD  R8<<2, R5, R6
	ADD  R8<<2, R6, R7
	VEOR V0.B16, V0.B16, V0.B16
	VEOR V1.B16, V1.B16, V1.B16
	VEOR V2.B16, V2.B16, V2.B16
	VEOR V3.B16, V3.B16, V3.B16
	VEOR V4.B16, V4.B16, V4.B16
	VEOR V5.B16, V5.B16, V5.B16
	VEOR V6.B16, V6.B16, V6.B16
	VEOR V7.B16, V7.B16, V7.B16
	VEOR V8.B16, V8.B16, V8.B16
	VEOR V9.B16, V9.B16, V9.B16
	VEOR V10.B16, V10.B16, V10.B16
	VEOR V11.B16, V11.B16, V11.B16

loop:
	VLD1.P 16(R1), [V16.S4]
	VLD1.P 16(R2), [V17.S4]
	VLD1.P 16(R3), [V18.S4]
	VLD1.P 16(R4), [V20.S4]
	VLD1.P 16(R5), [V21.S4]
	VLD1.P 16(R6), [V22.S4]
	VLD1.P 16(R7), [V23.S4]
	VFMLA  V16.S4, V20.S4, V0.S4
	VFMLA  V16.S4, V21.S4, V1.S4
	VFMLA  V16.S4, V22.S4, V2.S4
	VFMLA  V16.S4, V23.S4, V3.S4
	VFMLA  V17.S4, V20.S4, V4.S4
	VFMLA  V17.S4, V21.S4, V5.S4
	VFMLA  V17.S4, V22.S4, V6.S4
	VFMLA  V17.S4, V23.S4, V7.S4
	VFMLA  V18.S4, V20.S4, V8.S4
	VFMLA  V18.S4, V21.S4, V9.S4
	VFMLA  V18.S4, V22.S4, V10.S4
	VFMLA  V18.S4, V23.S4, V11.S4
	SUBS   $4, R8, R8
	BNE    loop

	// The sum over each accumulator's four lanes: transpose 4 x 4 by two rounds
	// of zips, then add. A multiply-add by ones stands in for the vector FADD
	// that Go's assembler lacks.
	FMOVS $1.0, F24
	VDUP  V24.S[0], V24.S4

#define SUM4(a, b, c, d) \
	VZIP1 c.S4, a.S4, V16.S4; \
	VZIP2 c.S4, a.S4, V17.S4; \
	VZIP1 d.S4, b.S4, V18.S4; \
	VZIP2 d.S4, b.S4, V19.S4; \
	VZIP1 V18.S4, V16.S4, V20.S4; \
	VZIP2 V18.S4, V16.S4, V21.S4; \
	VZIP1 V19.S4, V17.S4, V22.S4; \
	VZIP2 V19.S4, V17.S4, V23.S4; \
	VFMLA V20.S4, V24.S4, V21.S4; \
	VFMLA V22.S4, V24.S4, V23.S4; \
	VFMLA V21.S4, V24.S4, V23.S4; \
	VST1.P [V23.S4], 16(R0)

	SUM4(V0, V1, V2, V3)
	SUM4(V4, V5, V6, V7)
	SUM4(V8, V9, V10, V11)
	RET
