/* Hides AVX-512 and AMX from the process that it is loaded into, so that a library without a switch of its own
 * computes by AVX2: `cc -O2 -shared -fPIC only_avx2.c -o only_avx2.so`, then `LD_PRELOAD=./only_avx2.so`.
 *
 * Linux lets a process fault on CPUID where the processor can (`cpuid_fault` in /proc/cpuinfo): the handler runs
 * the instruction itself and clears the bits. Libraries that ask before they are loaded after this one see them
 * cleared; the C library itself, which asked earlier, does not.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_SET_CPUID = 0x1012, FAULT = 0, ANSWER = 1 };

static void cpuid_should(long what) { syscall(SYS_arch_prctl, ARCH_SET_CPUID, what); }

/* Of leaf 7: AVX-512 F, DQ, IFMA, PF, ER, CD, BW, VL; VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ; 4VNNIW, 4FMAPS,
 * VP2INTERSECT, FP16 and AMX; of its next page AVX-VNNI, AVX-512 BF16 and AMX FP16. */
static const unsigned EBX = 0xdc230000u, ECX = 0x00005842u, EDX = 0x03c0010cu, EAX_1 = 0x00200030u;

static void on_fault(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    unsigned a, b, c, d, leaf = (unsigned)registers[REG_RAX], page = (unsigned)registers[REG_RCX];
    (void)info;
    if (code[0] != 0x0f || code[1] != 0xa2) { /* not CPUID: a fault like any other */
        signal(number, SIG_DFL);
        return;
    }
    cpuid_should(ANSWER);
    __cpuid_count(leaf, page, a, b, c, d);
    cpuid_should(FAULT);
    if (leaf == 7 && page == 0) {
        b &= ~EBX;
        c &= ~ECX;
        d &= ~EDX;
    } else if (leaf == 7 && page == 1) {
        a &= ~EAX_1;
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void hide(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    if (syscall(SYS_arch_prctl, ARCH_SET_CPUID, FAULT) != 0) {
        perror("only_avx2: this processor cannot fault on CPUID");
        exit(1);
    }
}
