#include "textflag.h"

// func getrlimit(resource uintptr, lim *rlimit)
TEXT ·getrlimit(SB), NOSPLIT, $0-16
	MOVQ $0, DI
	MOVQ resource+0(FP), SI
	MOVQ $0, DX
	MOVQ lim+8(FP), R10
	MOVQ $302, AX // prlimit64
	SYSCALL
	RET
