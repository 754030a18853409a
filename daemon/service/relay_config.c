/* SPDX-License-Identifier: Apache-2.0 */
#include "service/relay_config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "service/option.h"

enum { TIMEOUT_MS = 5000, TIMEOUT_MS_MAX = 600000, DOWN_MS = 10000, DOWN_MS_MAX = 86400000 };

static int parse_unix(const char *path, struct backend *b)
{
	if (path[0] != '/' || strlen(path) >= sizeof(b->address.local.sun_path))
		return -EINVAL;
	b->address.local.sun_family = AF_UNIX;
	memcpy(b->address.local.sun_path, path, strlen(path) + 1);
	b->len = sizeof(b->address.local);
	return 0;
}

static int parse_endpoint(const char *text, struct endpoint *ret_endpoint)
{
	struct endpoint ep;

	if (endpoint_parse(text, false, &ep) || addr_is_any(&ep.addr) ||
	    addr_is_multicast(&ep.addr) || addr_is_broadcast(&ep.addr) ||
	    addr_is_link_local6(&ep.addr))
		return -EINVAL;
	*ret_endpoint = ep;
	return 0;
}

static void fill_socket_address(struct backend *b, const struct endpoint *ep)
{
	if (addr_is_v4(&ep->addr)) {
		b->len = sizeof(b->address.v4);
		b->address.v4.sin_family = AF_INET;
		b->address.v4.sin_port = htons(ep->port);
		memcpy(&b->address.v4.sin_addr, ep->addr.b + 12, 4);
	} else {
		b->len = sizeof(b->address.v6);
		b->address.v6.sin6_family = AF_INET6;
		b->address.v6.sin6_port = htons(ep->port);
		memcpy(&b->address.v6.sin6_addr, ep->addr.b, 16);
	}
}

static int parse_backend(const char *text, struct backend *b)
{
	static const char ours[] = "tcpfsm:";
	struct endpoint ep;

	if (strlen(text) >= sizeof(b->text))
		return -EINVAL;
	memcpy(b->text, text, strlen(text) + 1);
	if (!strncmp(text, "unix:", 5))
		return parse_unix(text + 5, b);
	b->ours = !strncmp(text, ours, sizeof(ours) - 1);
	if (parse_endpoint(b->ours ? text + sizeof(ours) - 1 : text, &ep))
		return -EINVAL;
	if (b->ours)
		b->remote = ep;
	else
		fill_socket_address(b, &ep);
	return 0;
}

static int parse_proxy(struct relay_config *cfg, const char *version, struct errmsg *ret_err)
{
	if (strcmp(version, "v1") != 0 && strcmp(version, "v2") != 0)
		return errmsg(ret_err, -EINVAL, "relay:proxy=%s: proxy=v1 or proxy=v2", version);
	cfg->proxy = version[1] == '1' ? 1 : 2;
	return 0;
}

static int parse_down(struct relay_config *cfg, const char *text, struct errmsg *ret_err)
{
	cfg->down_ms = 0;
	if (strcmp(text, "0") != 0 && option_time(text, DOWN_MS_MAX, &cfg->down_ms))
		return errmsg(ret_err, -EINVAL,
			      "relay:down=%s: a time such as 500ms or 10s, up to a day, or 0",
			      text);
	return 0;
}

static int add_backend(struct relay_config *cfg, const char *text, struct errmsg *ret_err)
{
	if (cfg->backends_n == BACKENDS_MAX)
		return errmsg(ret_err, -EINVAL, "relay:%s: more than %d backends", text,
			      BACKENDS_MAX);
	if (parse_backend(text, &cfg->backends[cfg->backends_n]))
		return errmsg(
			ret_err, -EINVAL,
			"relay:%s: not a backend (ADDRESS:PORT, [ADDRESS]:PORT, unix:/PATH or "
			"tcpfsm:ADDRESS:PORT) nor proxy=v1, proxy=v2, timeout=TIME, down=TIME "
			"or max=NUMBER",
			text);
	cfg->backends_n++;
	return 0;
}

static int parse_item(struct relay_config *cfg, const char *text, struct errmsg *ret_err)
{
	if (!strncmp(text, "proxy=", 6))
		return parse_proxy(cfg, text + 6, ret_err);
	if (!strncmp(text, "down=", 5))
		return parse_down(cfg, text + 5, ret_err);
	if (!strncmp(text, "timeout=", 8))
		return option_time(text + 8, TIMEOUT_MS_MAX, &cfg->timeout_ms)
			       ? errmsg(ret_err, -EINVAL,
					"relay:%s: a time such as 500ms or 5s, up to 600s", text)
			       : 0;
	if (!strncmp(text, "max=", 4))
		return option_number(text + 4, UINT32_MAX, &cfg->backend_max)
			       ? errmsg(ret_err, -EINVAL, "relay:%s: a number, 1 or more", text)
			       : 0;
	return add_backend(cfg, text, ret_err);
}

/* Connections to backends of ours have a service of their own. */
static int make_far(struct relay_config *cfg, struct errmsg *ret_err)
{
	bool needed = false;

	for (unsigned i = 0; i < cfg->backends_n; i++)
		needed |= cfg->backends[i].ours;
	return needed && service_new_far(&cfg->far)
		       ? errmsg(ret_err, -ENOMEM, "relay: out of memory")
		       : 0;
}

int relay_config_new(const char *argument, struct relay_config **ret_config, struct errmsg *ret_err)
{
	struct relay_config *const cfg = calloc(1, sizeof(*cfg));
	char *const text = strdup(argument);
	char *rest = text;
	int rc = cfg && text ? 0 : errmsg(ret_err, -ENOMEM, "relay: out of memory");

	if (!rc) {
		cfg->timeout_ms = TIMEOUT_MS;
		cfg->down_ms = DOWN_MS;
	}
	while (!rc && rest)
		rc = parse_item(cfg, strsep(&rest, ","), ret_err);
	if (!rc && !cfg->backends_n)
		rc = errmsg(ret_err, -EINVAL, "relay:%s: a backend is needed: relay:ADDRESS:PORT",
			    argument);
	if (!rc)
		rc = make_far(cfg, ret_err);
	free(text);
	if (rc)
		relay_config_free(cfg);
	else
		*ret_config = cfg;
	return rc;
}

void relay_config_free(struct relay_config *cfg)
{
	if (!cfg)
		return;
	service_unref(cfg->far);
	free(cfg);
}

int relay_config_choose(const struct relay_config *cfg, const struct limits *l, vtime now,
			uint32_t tried, bool *ret_full)
{
	int last = -1;

	*ret_full = false;
	for (unsigned i = 0; i < cfg->backends_n; i++) {
		if (tried & 1U << i)
			continue;
		if (cfg->backend_max && limits_count(l, i) >= cfg->backend_max) {
			*ret_full = true;
			continue;
		}
		if (now.us >= limits_down_until_us(l, i))
			return (int)i;
		/* Of those that are down the one that fails the longest: it may be well again. */
		if (last < 0 ||
		    limits_down_until_us(l, i) < limits_down_until_us(l, (unsigned)last))
			last = (int)i;
	}
	return last;
}

void backend_connected(struct relay_config *cfg, struct limits *l, unsigned i)
{
	cfg->backends[i].connected++;
	limits_set_down(l, i, 0);
}

void backend_failed(struct relay_config *cfg, struct limits *l, unsigned i, vtime now)
{
	cfg->backends[i].failed++;
	limits_set_down(l, i, vtime_add(now, (uint64_t)cfg->down_ms * 1000).us);
}
