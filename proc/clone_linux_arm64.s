#include "textflag.h"

// func rawClone(flags, pidfd uintptr) (pid, errno uintptr)
//
// A leaf without a frame: the return address stays in the link register, which
// the kernel saves for parent and child alike.
TEXT ·rawClone(SB), NOSPLIT|NOFRAME, $0-32
	MOVD flags+0(FP), R0
	MOVD $0, R1            // the parent's stack
	MOVD pidfd+8(FP), R2   // parent_tid, where CLONE_PIDFD stores the descriptor
	MOVD $0, R3
	MOVD $0, R4
	MOVD $220, R8          // clone
	SVC
	CMN  $4095, R0
	BCC  ok
	MOVD ZR, pid+16(FP)
	NEG  R0, R0
	MOVD R0, errno+24(FP)
	RET
ok:
	MOVD R0, pid+16(FP)
	MOVD ZR, errno+24(FP)
	RET
