// SPDX-License-Identifier: MIT OR Apache-2.0
// The echo server of benches/reactor on libuv: one read buffer for all connections. What a socket does not take at once is
// dropped, as by the floor.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

static char buffer[64 * 1024];

static void lend(uv_handle_t *handle, size_t wanted, uv_buf_t *lent)
{
	(void)handle;
	(void)wanted;
	*lent = uv_buf_init(buffer, sizeof(buffer));
}

static void forget(uv_handle_t *handle)
{
	free(handle);
}

static void echo(uv_stream_t *stream, ssize_t count, const uv_buf_t *lent)
{
	if (count < 0) {
		uv_close((uv_handle_t *)stream, forget);
		return;
	}
	if (count > 0) {
		uv_buf_t answer = uv_buf_init(lent->base, (unsigned)count);
		uv_try_write(stream, &answer, 1);
	}
}

static void open_one(uv_stream_t *listener, int status)
{
	uv_tcp_t *connection;

	if (status < 0)
		return;
	connection = malloc(sizeof(*connection));
	if (!connection)
		abort();
	uv_tcp_init(listener->loop, connection);
	if (uv_accept(listener, (uv_stream_t *)connection) < 0) {
		uv_close((uv_handle_t *)connection, forget);
		return;
	}
	uv_tcp_nodelay(connection, 1);
	uv_read_start((uv_stream_t *)connection, lend, echo);
}

// The server ends when its input does.
static void wait_for_the_end(void *unused)
{
	char byte;

	(void)unused;
	while (read(0, &byte, 1) > 0)
		;
	_exit(0);
}

int main(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	int length = sizeof(addr);
	uv_tcp_t listener;
	uv_thread_t input;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	uv_tcp_init(uv_default_loop(), &listener);
	if (uv_tcp_bind(&listener, (struct sockaddr *)&addr, 0) < 0 ||
	    uv_listen((uv_stream_t *)&listener, 4096, open_one) < 0)
		return 1;
	uv_tcp_getsockname(&listener, (struct sockaddr *)&addr, &length);
	printf("127.0.0.1:%d\n", ntohs(addr.sin_port));
	fflush(stdout);
	uv_thread_create(&input, wait_for_the_end, NULL);
	return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}
