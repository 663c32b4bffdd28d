/*
 * Preloaded into the target's programs in a pilot (cluster/node/pilot.py): posix_spawn(3) that says
 * at once why a program cannot be started, as it does in a node.
 *
 * The C library's child shares its parent's memory and leaves the error there. qemu-user makes a
 * child with a copy instead, so that the parent is told that all is well, and a configure script
 * that asks whether posix_spawn can be relied on gets another answer than in a node. Only the
 * errors that a path by itself has are found here; what the file actions do to it is not looked at.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int spawn(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
		  char *const[], char *const[]);

/* What execve(2) would say of a file; 0 if it would start it. */
static int refusal(const char *path)
{
	struct stat status;
	char head[4];

	if (access(path, X_OK))
		return errno;
	if (stat(path, &status) || !S_ISREG(status.st_mode))
		return EACCES;
	int file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return 0; /* a program need not be readable */
	ssize_t size = read(file, head, sizeof head);
	close(file);
	return size >= 2 && (!memcmp(head, "#!", 2) || (size == 4 && !memcmp(head, "\177ELF", 4))) ? 0 : ENOEXEC;
}

/* The same of a name that is looked for in PATH, as execvpe(3) does. */
static int refusal_of_name(const char *name)
{
	const char *path = getenv("PATH");
	int denied = 0;

	if (strchr(name, '/'))
		return refusal(name);
	for (const char *entry = path ? path : "/bin:/usr/bin"; entry; entry = strchr(entry, ':')) {
		char candidate[PATH_MAX];
		entry += *entry == ':';
		int length = (int)strcspn(entry, ":");
		snprintf(candidate, sizeof candidate, "%.*s%s%s", length, entry, length ? "/" : "", name);
		int error = refusal(candidate);
		if (error != ENOENT && error != ENOTDIR && error != EACCES)
			return error;
		denied = denied || error == EACCES;
	}
	return denied ? EACCES : ENOENT;
}

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
		const posix_spawnattr_t *attributes, char *const argv[], char *const environment[])
{
	spawn *real = (spawn *)dlsym(RTLD_NEXT, "posix_spawn");
	int error = refusal(path);
	return error ? error : real(pid, path, actions, attributes, argv, environment);
}

int posix_spawnp(pid_t *pid, const char *name, const posix_spawn_file_actions_t *actions,
		 const posix_spawnattr_t *attributes, char *const argv[], char *const environment[])
{
	spawn *real = (spawn *)dlsym(RTLD_NEXT, "posix_spawnp");
	int error = refusal_of_name(name);
	return error ? error : real(pid, name, actions, attributes, argv, environment);
}
