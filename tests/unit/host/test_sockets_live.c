/* SPDX-License-Identifier: Apache-2.0 */
/* Kernel sockets in the way of ours. The test process itself is the one to be named. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/sockets.h"
#include "netns.h"

static int setup(void **state)
{
	netns_fresh();
	return 0;
}

static int check(const char *addr, uint16_t min, uint16_t max)
{
	struct ipaddr a = addr_any4;

	if (!strcmp(addr, "[*]"))
		a = addr_any6;
	else if (strcmp(addr, "0.0.0.0") != 0)
		assert_int_equal(addr_parse(addr, &a), 0);
	return sockets_check_free(&a, min, max, NULL);
}

static void a_listener_is_named(void **state)
{
	const struct ipaddr lo = addr_v4(127, 0, 0, 1);
	char want[128];
	struct errmsg err;
	uint16_t port;
	const int fd = netns_listen("127.0.0.1", false, &port);

	assert_int_equal(sockets_check_free(&lo, port, port, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "is served by the kernel for test_host_"));
	(void)snprintf(want, sizeof(want), "(pid %d)", (int)getpid());
	assert_non_null(strstr(err.text, want));
	close(fd);
	assert_int_equal(sockets_check_free(&lo, port, port, &err), 0);
}

static void an_ipv4_listener_is_in_the_way_of_what_overlaps(void **state)
{
	uint16_t port;
	const int fd = netns_listen("127.0.0.1", false, &port);

	assert_int_equal(check("*", port, port), -EADDRINUSE);
	assert_int_equal(check("0.0.0.0", port, port), -EADDRINUSE);
	assert_int_equal(check("[*]", port, port), 0);
	assert_int_equal(check("127.0.0.1", 1, 65535), -EADDRINUSE);
	assert_int_equal(check("127.0.0.2", port, port), 0);
	assert_int_equal(check("::1", port, port), 0);
	assert_int_equal(check("*", (uint16_t)(port + 1), 65535), 0);
	assert_int_equal(check("*", 1, (uint16_t)(port - 1)), 0);
	close(fd);
}

static void an_ipv4_listener_on_any_address(void **state)
{
	uint16_t port;
	const int fd = netns_listen("0.0.0.0", false, &port);

	assert_int_equal(check("127.0.0.2", port, port), -EADDRINUSE);
	assert_int_equal(check("::1", port, port), 0);
	close(fd);
}

static void an_ipv6_listener_takes_ipv4_unless_told(void **state)
{
	uint16_t port;
	int fd = netns_listen("::", false, &port);

	assert_int_equal(check("127.0.0.1", port, port), -EADDRINUSE);
	assert_int_equal(check("0.0.0.0", port, port), -EADDRINUSE);
	assert_int_equal(check("::1", port, port), -EADDRINUSE);
	close(fd);
	fd = netns_listen("::", true, &port);
	assert_int_equal(check("127.0.0.1", port, port), 0);
	assert_int_equal(check("0.0.0.0", port, port), 0);
	assert_int_equal(check("::1", port, port), -EADDRINUSE);
	assert_int_equal(check("*", port, port), -EADDRINUSE);
	close(fd);
	fd = netns_listen("::1", false, &port);
	assert_int_equal(check("::2", port, port), 0);
	assert_int_equal(check("::1", port, port), -EADDRINUSE);
	close(fd);
}

static void a_connection_is_in_the_way_until_it_is_closed(void **state)
{
	uint16_t port;
	const int listener = netns_listen("127.0.0.1", false, &port);
	struct sockaddr_in sa = { .sin_family = AF_INET,
				  .sin_port = htons(port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(sa);
	struct ipaddr lo = addr_v4(127, 0, 0, 1);
	struct errmsg err;
	uint16_t local;
	int server;
	char octet;

	assert_int_equal(connect(client, (struct sockaddr *)&sa, sizeof(sa)), 0);
	server = accept(listener, NULL, NULL);
	assert_true(server >= 0);
	assert_int_equal(getsockname(client, (struct sockaddr *)&sa, &len), 0);
	local = ntohs(sa.sin_port);
	assert_int_equal(sockets_check_free(&lo, local, local, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, "connected to 127.0.0.1:"));
	/* The client goes first: it is left in FIN-WAIT-2, then in TIME-WAIT, and is nobody's. */
	close(client);
	assert_int_equal(read(server, &octet, 1), 0);
	assert_int_equal(check("127.0.0.1", local, local), 0);
	close(server);
	assert_int_equal(check("127.0.0.1", local, local), 0);
	close(listener);
}

/* Another user's process is not ours to look into. */
static void an_owner_out_of_sight_is_named_by_uid(void **state)
{
	uint16_t port;
	const int fd = netns_listen("127.0.0.1", false, &port);
	const pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		const struct ipaddr lo = addr_v4(127, 0, 0, 1);
		struct errmsg err = { { 0 } };

		close(fd);
		if (setgid(65534) || setuid(65534) ||
		    sockets_check_free(&lo, port, port, &err) != -EADDRINUSE ||
		    !strstr(err.text, "uid 0 (root)"))
			_exit(1);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(fd);
}

static void the_kernels_ephemeral_ports_are_not_ours(void **state)
{
	struct errmsg err;

	netns_run(NETNS_HERE, "echo 32768 60999 >/proc/sys/net/ipv4/ip_local_port_range");
	assert_int_equal(sockets_check_ephemeral(61000, 65535, &err), 0);
	assert_int_equal(sockets_check_ephemeral(1, 32767, &err), 0);
	assert_int_equal(sockets_check_ephemeral(60999, 65535, &err), -ERANGE);
	assert_non_null(strstr(err.text, "32768-60999"));
	assert_int_equal(sockets_check_ephemeral(32768, 32768, &err), -ERANGE);
	assert_int_equal(sockets_check_ephemeral(1, 65535, &err), -ERANGE);
}

static void ports_reserved_for_us_are_ours(void **state)
{
	netns_run(NETNS_HERE,
		  "echo 32768 60999 >/proc/sys/net/ipv4/ip_local_port_range; "
		  "echo 40000-40010,40011,50000-50100 >/proc/sys/net/ipv4/ip_local_reserved_ports");
	assert_int_equal(sockets_check_ephemeral(40000, 40011, NULL), 0);
	assert_int_equal(sockets_check_ephemeral(50050, 50100, NULL), 0);
	assert_int_equal(sockets_check_ephemeral(40000, 40012, NULL), -ERANGE);
	assert_int_equal(sockets_check_ephemeral(39999, 40001, NULL), -ERANGE);
	netns_run(NETNS_HERE, "echo 60000-60999 >/proc/sys/net/ipv4/ip_local_reserved_ports");
	assert_int_equal(sockets_check_ephemeral(60000, 65535, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_listener_is_named, setup),
		cmocka_unit_test_setup(an_ipv4_listener_is_in_the_way_of_what_overlaps, setup),
		cmocka_unit_test_setup(an_ipv4_listener_on_any_address, setup),
		cmocka_unit_test_setup(an_ipv6_listener_takes_ipv4_unless_told, setup),
		cmocka_unit_test_setup(a_connection_is_in_the_way_until_it_is_closed, setup),
		cmocka_unit_test_setup(an_owner_out_of_sight_is_named_by_uid, setup),
		cmocka_unit_test_setup(the_kernels_ephemeral_ports_are_not_ours, setup),
		cmocka_unit_test_setup(ports_reserved_for_us_are_ours, setup),
	};

	netns_need("ip");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
