#include "textflag.h"

// func rawVfork(trap, a1, a2, a3 uintptr) (pid, errno uintptr)
//
// The child of CLONE_VM|CLONE_VFORK runs on the parent's stack and overwrites
// the return address, so it is kept in a register across the system call: the
// kernel saves R12 for each of the two.
TEXT ·rawVfork(SB), NOSPLIT|NOFRAME, $0-48
	MOVQ trap+0(FP), AX
	MOVQ a1+8(FP), DI
	MOVQ a2+16(FP), SI
	MOVQ a3+24(FP), DX
	MOVQ $0, R10
	MOVQ $0, R8
	MOVQ $0, R9
	POPQ R12
	SYSCALL
	PUSHQ R12
	CMPQ AX, $0xfffffffffffff001
	JLS  ok
	MOVQ $0, pid+32(FP)
	NEGQ AX
	MOVQ AX, errno+40(FP)
	RET
ok:
	MOVQ AX, pid+32(FP)
	MOVQ $0, errno+40(FP)
	RET
