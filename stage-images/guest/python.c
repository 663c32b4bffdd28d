/* Python with Portage imported: ask the fork server (guest/forkserver) to become what this process
 * was called for, or be the real Python if there is none. Bash starts it for every phase, so it is
 * small and static: 5 ms where the interpreter takes 80 ms and Portage's imports 600 ms more. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define REAL "/opt/portage/bin/python3"
#define MOST 253 /* descriptors that the kernel passes in one message (SCM_MAX_FD) */

static const struct sockaddr_un place = {.sun_family = AF_UNIX, .sun_path = "/run/forkserver"};

/* The open descriptors, of which Portage gives some to its helpers by number; -1 if there are too many. */
static int descriptors(int numbers[MOST])
{
	DIR *open_ones = opendir("/proc/self/fd");
	if (!open_ones)
		return -1;
	int count = 0;
	for (struct dirent *entry; count >= 0 && (entry = readdir(open_ones));) {
		if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(open_ones))
			continue;
		if (count == MOST)
			count = -1;
		else
			numbers[count++] = atoi(entry->d_name);
	}
	closedir(open_ones);
	return count;
}

/* Send our umask and our descriptors with their numbers. The server finds the rest in /proc by our
 * process id, which the socket tells. */
static int ask(int server, const int *numbers, int count)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(MOST * sizeof(int))];
	} control = {0};
	char words[16 + MOST * 12];
	mode_t ours = umask(0);
	umask(ours);
	int length = snprintf(words, sizeof words, "%o", (unsigned)ours);
	for (int i = 0; i < count; i++)
		length += snprintf(words + length, sizeof words - (size_t)length, " %d", numbers[i]);
	struct iovec text = {words, (size_t)length};
	size_t size = (size_t)count * sizeof *numbers;
	struct msghdr message = {
		.msg_iov = &text, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(size)};
	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	control.head.cmsg_len = CMSG_LEN(size);
	memcpy(CMSG_DATA(&control.head), numbers, size);
	return sendmsg(server, &message, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

int main(int argc, char **argv)
{
	(void)argc;
	int numbers[MOST];
	int count = descriptors(numbers);
	int server = count < 1 ? -1 : socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (server < 0 || connect(server, (const struct sockaddr *)&place, sizeof place) < 0 ||
	    ask(server, numbers, count) < 0) {
		argv[0] = REAL; /* by which it finds Portage's prefix */
		execv(REAL, argv);
		perror(REAL);
		return 127;
	}
	unsigned char status;
	if (read(server, &status, 1) != 1) {
		fputs("the process that the fork server made ended without a status\n", stderr);
		return 1;
	}
	return status;
}
