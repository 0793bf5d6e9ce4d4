#include "textflag.h"

// func getrlimit(resource uintptr, lim *rlimit)
TEXT ·getrlimit(SB), NOSPLIT, $0-16
	MOVD $0, R0
	MOVD resource+0(FP), R1
	MOVD $0, R2
	MOVD lim+8(FP), R3
	MOVD $261, R8 // prlimit64
	SVC
	RET
