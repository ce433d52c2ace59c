/* User-mode Linux 6.1 has room for the registers up to AVX-512's, and the kernel takes a process' registers as a whole alone: where the CPU has
 * more, AMX's, it takes none, and user-mode Linux panics at its first process. This ptrace puts what user-mode Linux knows over what
 * there is. AMX's registers themselves nobody uses who has not asked the kernel for them, and user-mode Linux has no way to ask.
 * tools/setup builds it, vmtest has it loaded before the C library. */
#include <errno.h>
#include <elf.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static long merge(long pid, const struct iovec *known)
{
	static char all[16384]; /* user-mode Linux' own stacks are small, and it is one thread that does this */
	struct iovec whole = {all, sizeof(all)};
	long err = syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &whole);

	if (err || known->iov_len > whole.iov_len)
		return err ? err : -1;
	memcpy(all, known->iov_base, known->iov_len);
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &whole);
}

long ptrace(enum __ptrace_request request, ...)
{
	__builtin_va_list args;
	long pid, addr, data, word, err;

	__builtin_va_start(args, request);
	pid = __builtin_va_arg(args, long);
	addr = __builtin_va_arg(args, long);
	data = __builtin_va_arg(args, long);
	__builtin_va_end(args);
	if (request >= PTRACE_PEEKTEXT && request <= PTRACE_PEEKUSER) { /* the system call writes the word, the function returns it */
		err = syscall(SYS_ptrace, request, pid, addr, &word);
		if (err)
			return err;
		errno = 0;
		return word;
	}
	err = syscall(SYS_ptrace, request, pid, addr, data);
	if (err && request == PTRACE_SETREGSET && addr == NT_X86_XSTATE)
		err = merge(pid, (const struct iovec *)data);
	return err;
}
