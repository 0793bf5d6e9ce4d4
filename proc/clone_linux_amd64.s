#include "textflag.h"

// func rawClone(flags, pidfd uintptr) (pid, errno uintptr)
//
// The child of CLONE_VM|CLONE_VFORK runs on the parent's stack and overwrites
// the return address, so it is kept in a register across the system call: the
// kernel saves R12 for each of the two.
TEXT ·rawClone(SB), NOSPLIT|NOFRAME, $0-32
	MOVQ flags+0(FP), DI
	MOVQ $0, SI            // the parent's stack
	MOVQ pidfd+8(FP), DX   // parent_tid, where CLONE_PIDFD stores the descriptor
	MOVQ $0, R10
	MOVQ $0, R8
	MOVQ $0, R9
	MOVQ $56, AX           // clone
	POPQ R12
	SYSCALL
	PUSHQ R12
	CMPQ AX, $0xfffffffffffff001
	JLS  ok
	MOVQ $0, pid+16(FP)
	NEGQ AX
	MOVQ AX, errno+24(FP)
	RET
ok:
	MOVQ AX, pid+16(FP)
	MOVQ $0, errno+24(FP)
	RET
