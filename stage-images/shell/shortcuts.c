/*
 * What the shell does itself instead of starting a program: the plain cases of rm, cat, mv and mkdir.
 *
 * A configure script starts hundreds of them, and in an emulated node a start costs 3.5 ms. The shell
 * has looked the name up in PATH, expanded the words and redirected the descriptors; only then, and
 * only if it found the program at its usual place, is it asked for here. Whatever is not plain (an
 * option not known here, an operand that needs a message or a question) is left to the program, and
 * so is everything that fails before a byte is written: messages and statuses are the program's own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shortcuts.h"

#define BLOCK 65536
#define DESCRIPTORS 8 /* that a walk down a tree may keep open */

/* The letters of all options up to the operands, all of them in `known`; -1 if one is not. */
static int options(char **argv, const char *known, int *operands)
{
	int letters = 0, i = 1;
	for (; argv[i] && argv[i][0] == '-' && argv[i][1]; i++) {
		if (!strcmp(argv[i], "--")) {
			i++;
			break;
		}
		for (const char *letter = argv[i] + 1; *letter; letter++) {
			const char *found = strchr(known, *letter);
			if (!found)
				return -1;
			letters |= 1 << (found - known);
		}
	}
	*operands = i;
	/* GNU's programs take options after operands too. */
	for (; argv[i]; i++)
		if (argv[i][0] == '-')
			return -1;
	return letters;
}

/* The last component of a path is "." or "..", or there is none: rm refuses these. */
static int is_dot(const char *path)
{
	const char *last = strrchr(path, '/');
	last = last ? last + 1 : path;
	return !*last || !strcmp(last, ".") || !strcmp(last, "..");
}

static int delete(const char *path, const struct stat *status, int type, struct FTW *place)
{
	(void)status;
	(void)place;
	return type == FTW_DP ? rmdir(path) : unlink(path);
}

/* rm -f and rm -rf, which never ask. Again is harmless: what fails is left to the program. */
static int rm(char **argv)
{
	int first, letters = options(argv, "frR", &first);
	if (letters < 0 || !(letters & 1))
		return NO_SHORTCUT;
	for (int i = first; argv[i]; i++)
		if (is_dot(argv[i]))
			return NO_SHORTCUT;
	for (int i = first; argv[i]; i++) {
		struct stat status;
		if (lstat(argv[i], &status)) {
			if (errno != ENOENT && errno != ENOTDIR)
				return NO_SHORTCUT;
		} else if (S_ISDIR(status.st_mode)) {
			if (!(letters & 6) || nftw(argv[i], delete, DESCRIPTORS, FTW_DEPTH | FTW_PHYS | FTW_MOUNT))
				return NO_SHORTCUT;
		} else if (unlink(argv[i])) {
			return NO_SHORTCUT;
		}
	}
	return 0;
}

/* Write all; cat's status for what goes wrong. */
static int put(const char *data, ssize_t size)
{
	while (size > 0) {
		ssize_t n = write(1, data, size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			if (errno == EPIPE)
				return 128 + SIGPIPE;
			dprintf(2, "cat: write error: %s\n", strerror(errno));
			return 1;
		}
		data += n;
		size -= n;
	}
	return 0;
}

static int copy(int from, const char *name)
{
	static char block[BLOCK];
	for (;;) {
		ssize_t n = read(from, block, sizeof block);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			dprintf(2, "cat: %s: %s\n", name, strerror(errno));
			return 1;
		}
		int failed = n ? put(block, n) : 0;
		if (!n || failed)
			return failed;
	}
}

/* Whether cat may read it: a file or a pipe, and not what it writes to. */
static int readable(const char *path)
{
	struct stat from, to;
	int is_input = !strcmp(path, "-");
	if (is_input ? fstat(0, &from) : stat(path, &from) || access(path, R_OK))
		return 0;
	if (!S_ISREG(from.st_mode) && !(is_input && S_ISFIFO(from.st_mode)))
		return 0;
	return !fstat(1, &to) && !(from.st_dev == to.st_dev && from.st_ino == to.st_ino);
}

static int copy_named(const char *path)
{
	if (!strcmp(path, "-"))
		return copy(0, path);
	int file = open(path, O_RDONLY | O_CLOEXEC);
	if (file < 0) {
		dprintf(2, "cat: %s: %s\n", path, strerror(errno));
		return 1;
	}
	int failed = copy(file, path);
	close(file);
	return failed;
}

/* cat without options, of files and of its input (a here-document). */
static int cat(char **argv)
{
	static char *input[] = {"-", NULL};
	char **paths = argv[1] ? argv + 1 : input;
	for (int i = 0; paths[i]; i++)
		if ((paths[i][0] == '-' && paths[i][1]) || !readable(paths[i]))
			return NO_SHORTCUT;
	int status = 0;
	for (int i = 0; paths[i] && status < 128; i++) {
		int failed = copy_named(paths[i]);
		status = failed ? failed : status;
	}
	return status;
}

/* mv of one file to a name that is no directory, where nobody is to be asked. */
static int mv(char **argv)
{
	int first, letters = options(argv, "f", &first);
	struct stat from, to;
	if (letters < 0 || !argv[first] || !argv[first + 1] || argv[first + 2])
		return NO_SHORTCUT;
	const char *source = argv[first], *target = argv[first + 1];
	if (lstat(source, &from) || !S_ISREG(from.st_mode) || target[strlen(target) - 1] == '/')
		return NO_SHORTCUT;
	if (!stat(target, &to)) {
		int same = from.st_dev == to.st_dev && from.st_ino == to.st_ino;
		if (S_ISDIR(to.st_mode) || same || (!letters && access(target, W_OK)))
			return NO_SHORTCUT;
	} else if (errno != ENOENT || !lstat(target, &to)) {
		return NO_SHORTCUT;
	}
	return rename(source, target) ? NO_SHORTCUT : 0;
}

/* mkdir and mkdir -p of one directory whose parent is there. */
static int make_directory(char **argv)
{
	int first, letters = options(argv, "p", &first);
	struct stat status;
	if (letters < 0 || !argv[first] || argv[first + 1])
		return NO_SHORTCUT;
	if (!mkdir(argv[first], 0777))
		return 0;
	return letters && errno == EEXIST && !stat(argv[first], &status) && S_ISDIR(status.st_mode) ? 0 : NO_SHORTCUT;
}

static const struct {
	const char *name;
	int (*act)(char **argv);
	int pipes; /* whether it may write to a pipe that nobody reads */
} shortcuts[] = {{"rm", rm, 0}, {"cat", cat, 1}, {"mv", mv, 0}, {"mkdir", make_directory, 0}};

static int (*named(const char *path, int *pipes))(char **)
{
	const char *name = !strncmp(path, "/usr", 4) ? path + 4 : path;
	if (strncmp(name, "/bin/", 5))
		return NULL;
	for (size_t i = 0; i < sizeof shortcuts / sizeof *shortcuts; i++)
		if (!strcmp(name + 5, shortcuts[i].name)) {
			*pipes = shortcuts[i].pipes;
			return shortcuts[i].act;
		}
	return NULL;
}

int shortcut(const char *path, char **argv)
{
	int pipes;
	int (*act)(char **) = named(path, &pipes);
	if (!act || !argv[0])
		return NO_SHORTCUT;
	if (!pipes)
		return act(argv);
	/* A program would die of this signal, and the shell that started it would not. */
	struct sigaction ignored = {.sa_handler = SIG_IGN}, before;
	sigaction(SIGPIPE, &ignored, &before);
	int status = act(argv);
	sigaction(SIGPIPE, &before, NULL);
	return status;
}
