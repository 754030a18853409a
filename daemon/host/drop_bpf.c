/* SPDX-License-Identifier: Apache-2.0 */
/* The early drop as a program of BPF at the ingress of each device (TCX, Linux 6.6). The kernel forgets it with the
 * last descriptor, and so with the daemon however that ends: nothing can be left over.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/macros.h"
#include "host/drop.h"
#include "host/dropprog.h"

enum {
	TCX_INGRESS = 46, /* enum bpf_attach_type: BPF_TCX_INGRESS of Linux 6.6 */
	LOCALS_MAX = 65536,
	MEMBERS_MAX = 262144, /* all ports of both families, and more than iptables' rules bear */
	CPUS_MAX = 8192, /* what a kernel may have */
	LOG_BYTES = 16384, /* of the verifier */
	LOOPBACK_IFINDEX = 1,
};

/* What the map has, in the order of keys. */
struct member {
	struct dropprog_key key;
	uint32_t rule; /* that counts it: the first that has it */
};

struct members {
	struct member *list;
	size_t n;
};

struct locals {
	struct ipaddr *list;
	size_t n;
};

/* A device that has the program. */
struct place {
	uint64_t made; /* the device's */
	int fd; /* of the link: closed, the program goes */
};

struct drop_bpf {
	struct drop drop;
	int locals_fd, members_fd;
	int prog_fd[2]; /* without an Ethernet header, and with it */
	size_t cpus; /* for which the kernel counts */
	struct dropprog_count *counts; /* room for as many */
	struct members members;
	struct locals locals;
	struct shield_rule *rules; /* that members are of */
	size_t rules_n;
	struct place places[SHIELD_DEVICES];
	size_t places_n;
};

static struct drop_bpf *self(struct drop *d)
{
	return (struct drop_bpf *)d;
}

/* --- bpf(2) --------------------------------------------------------------------------------- */

/* A descriptor or 0; -Exxx. */
static int bpf(enum bpf_cmd cmd, union bpf_attr *attr)
{
	const long rc = syscall(SYS_bpf, cmd, attr, sizeof(*attr));

	return rc < 0 ? -errno : (int)rc;
}

static uint64_t pointer(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

static int map_new(enum bpf_map_type type, size_t key_bytes, size_t value_bytes, uint32_t max)
{
	union bpf_attr a = { .map_type = type,
			     .key_size = (uint32_t)key_bytes,
			     .value_size = (uint32_t)value_bytes,
			     .max_entries = max,
			     .map_flags = BPF_F_NO_PREALLOC };

	return bpf(BPF_MAP_CREATE, &a);
}

static int map_put(int fd, const void *key, const void *value)
{
	union bpf_attr a = { .map_fd = (uint32_t)fd, .key = pointer(key), .value = pointer(value) };

	return bpf(BPF_MAP_UPDATE_ELEM, &a);
}

static int map_get(int fd, const void *key, void *ret_value)
{
	union bpf_attr a = { .map_fd = (uint32_t)fd,
			     .key = pointer(key),
			     .value = pointer(ret_value) };

	return bpf(BPF_MAP_LOOKUP_ELEM, &a);
}

/* What is not there has gone already. */
static int map_delete(int fd, const void *key)
{
	union bpf_attr a = { .map_fd = (uint32_t)fd, .key = pointer(key) };
	const int rc = bpf(BPF_MAP_DELETE_ELEM, &a);

	return rc == -ENOENT ? 0 : rc;
}

/* Whatever is in it. key: room for one. */
static void map_clear(int fd, void *key)
{
	union bpf_attr a = { .map_fd = (uint32_t)fd, .next_key = pointer(key) };

	while (!bpf(BPF_MAP_GET_NEXT_KEY, &a)) {
		if (map_delete(fd, key))
			return;
	}
}

/* log: LOG_BYTES for what the verifier says; NULL: nothing. */
static int prog_load(const struct drop_bpf *d, uint8_t link_header, char *log)
{
	static const char license[] = "Apache-2.0";
	struct bpf_insn insn[DROPPROG_MAX] = { 0 };
	const size_t n = dropprog_write(insn, link_header, d->locals_fd, d->members_fd);
	union bpf_attr a = { .prog_type = BPF_PROG_TYPE_SCHED_CLS,
			     .insn_cnt = (uint32_t)n,
			     .insns = pointer(insn),
			     .license = pointer(license),
			     .log_level = log ? 1 : 0,
			     .log_size = log ? LOG_BYTES : 0,
			     .log_buf = pointer(log) };

	memcpy(a.prog_name, "tcpfsmd_drop", sizeof("tcpfsmd_drop"));
	return bpf(BPF_PROG_LOAD, &a);
}

/* Behind the programs that others have there. */
static int attach(const struct drop_bpf *d, uint32_t ifindex, bool ethernet)
{
	union bpf_attr a = { .link_create = { .prog_fd = (uint32_t)d->prog_fd[ethernet],
					      .target_ifindex = ifindex,
					      .attach_type = TCX_INGRESS } };

	return bpf(BPF_LINK_CREATE, &a);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

/* --- Making --------------------------------------------------------------------------------- */

/* What the kernel refused, and what it takes. */
static int refusal(int rc, const char *what, const char *more, struct errmsg *ret_err)
{
	if (rc == -EPERM)
		return errmsg(
			ret_err, rc,
			"Shield=bpf takes CAP_BPF and bpf(2), which the service's unit does not "
			"give unless a drop-in does, see tcpfsmd.conf(5); or use Shield=ingress or "
			"Shield=iptables: %s: %s",
			what, strerror(-rc));
	return errmsg(
		ret_err, rc,
		"Shield=bpf needs Linux 6.6 with CONFIG_BPF_SYSCALL and CONFIG_NET_XGRESS; use "
		"Shield=ingress or Shield=iptables: %s: %s%s%.200s",
		what, strerror(-rc), more ? ": " : "", more ? more : "");
}

/* Its last words are the reason. */
static const char *last_line(char *log)
{
	char *at;

	for (size_t n = strlen(log); n && log[n - 1] == '\n'; n--)
		log[n - 1] = 0;
	at = strrchr(log, '\n');
	/* Behind it come figures about the work. */
	if (at && !strncmp(at + 1, "processed ", 10)) {
		*at = 0;
		at = strrchr(log, '\n');
	}
	return at ? at + 1 : log;
}

static int load_program(struct drop_bpf *d, bool ethernet, struct errmsg *ret_err)
{
	const uint8_t link_header = ethernet ? 14 : 0;
	char *log;
	int rc = prog_load(d, link_header, NULL);

	d->prog_fd[ethernet] = rc < 0 ? -1 : rc;
	if (rc >= 0)
		return 0;
	log = rc == -EPERM ? NULL : calloc(1, LOG_BYTES);
	if (log)
		(void)prog_load(d, link_header, log);
	rc = refusal(rc, "the program is not taken", log && *log ? last_line(log) : NULL, ret_err);
	free(log);
	return rc;
}

/* For how many CPUs does the kernel count? It says nowhere but in how much it writes. */
static int measure_cpus(struct drop_bpf *d)
{
	static const struct dropprog_key key = { .family = 0 };
	const size_t bytes = CPUS_MAX * sizeof(*d->counts);
	int rc;

	d->counts = calloc(CPUS_MAX, sizeof(*d->counts));
	if (!d->counts)
		return -ENOMEM;
	rc = map_put(d->members_fd, &key, d->counts);
	memset(d->counts, 0xff, bytes);
	if (!rc)
		rc = map_get(d->members_fd, &key, d->counts);
	if (!rc)
		rc = map_delete(d->members_fd, &key);
	for (d->cpus = 0; d->cpus < CPUS_MAX && d->counts[d->cpus].packets == 0; d->cpus++)
		;
	return rc;
}

static int make_maps(struct drop_bpf *d, struct errmsg *ret_err)
{
	int rc;

	d->locals_fd = rc = map_new(BPF_MAP_TYPE_HASH, sizeof(struct ipaddr), 1, LOCALS_MAX);
	if (rc >= 0)
		d->members_fd = rc = map_new(BPF_MAP_TYPE_PERCPU_HASH, sizeof(struct dropprog_key),
					     sizeof(struct dropprog_count), MEMBERS_MAX);
	if (rc >= 0)
		rc = measure_cpus(d);
	return rc < 0 ? refusal(rc, "maps", NULL, ret_err) : 0;
}

/* On lo for a moment, where it drops nothing: it knows nothing yet. */
static int try_link(const struct drop_bpf *d, struct errmsg *ret_err)
{
	int fd = attach(d, LOOPBACK_IFINDEX, true);

	if (fd < 0)
		return refusal(fd, "the program cannot be put at a device's ingress", NULL,
			       ret_err);
	close_fd(&fd);
	return 0;
}

static int bpf_check(struct drop *drop, struct errmsg *ret_err)
{
	struct drop_bpf *const d = self(drop);
	int rc = make_maps(d, ret_err);

	for (int i = 0; i < 2 && !rc; i++)
		rc = load_program(d, i, ret_err);
	return rc ? rc : try_link(d, ret_err);
}

/* --- What is dropped ------------------------------------------------------------------------ */

static int compare_members(const void *a, const void *b)
{
	const struct member *const x = a, *const y = b;
	const int order = memcmp(&x->key, &y->key, sizeof(x->key));

	return order ? order : (x->rule > y->rule) - (x->rule < y->rule);
}

static int compare_addrs(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct ipaddr));
}

static size_t ports_of(const struct shield_rule *rules, size_t n)
{
	size_t ports = 0;

	for (size_t i = 0; i < n; i++)
		ports += 1U + rules[i].port_max - rules[i].port_min;
	return ports;
}

static void add_rule(struct members *m, const struct shield_rule *rules, uint32_t i, bool ipv6)
{
	const struct shield_rule *const r = &rules[i];

	if (!ruletext_in_family(r, ipv6))
		return;
	for (unsigned p = r->port_min; p <= r->port_max; p++)
		m->list[m->n++] = (struct member){ .key = { .addr = addr_is_any(&r->addr) ? addr_any
											  : r->addr,
							    .port = htons((uint16_t)p),
							    .family = ipv6 ? 6 : 4 },
						   .rule = i };
}

static int members_of(const struct shield_rule *rules, size_t n, struct members *ret_members)
{
	struct members m = { calloc(2 * ports_of(rules, n) + 1, sizeof(*m.list)), 0 };
	size_t kept = 0;

	if (!m.list)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		add_rule(&m, rules, (uint32_t)i, false);
		add_rule(&m, rules, (uint32_t)i, true);
	}
	qsort(m.list, m.n, sizeof(*m.list), compare_members);
	for (size_t i = 0; i < m.n; i++) {
		if (!kept ||
		    memcmp(&m.list[kept - 1].key, &m.list[i].key, sizeof(m.list[i].key)) != 0)
			m.list[kept++] = m.list[i];
	}
	m.n = kept;
	*ret_members = m;
	return 0;
}

static int locals_of(const struct netview *view, struct locals *ret_locals)
{
	struct locals l = { 0 };
	struct ipaddr a;
	size_t at = 0, n = 0;

	while (netview_next_local(view, &at, &a))
		n++;
	l.list = calloc(n + 1, sizeof(*l.list));
	if (!l.list)
		return -ENOMEM;
	for (at = 0; netview_next_local(view, &at, &a);)
		l.list[l.n++] = a;
	qsort(l.list, l.n, sizeof(*l.list), compare_addrs);
	*ret_locals = l;
	return 0;
}

/* What a map is to have, and has: sorted. */
struct content {
	const void *list;
	size_t n, stride; /* the key comes first in each */
	size_t key_bytes;
};

static const void *key_at(const struct content *c, size_t i)
{
	return (const char *)c->list + i * c->stride;
}

/* Those of `from` that `in` has not are put (value) or deleted (NULL). */
static int move(int fd, const struct content *from, const struct content *in, const void *value)
{
	size_t k = 0;

	for (size_t i = 0; i < from->n; i++) {
		const void *const key = key_at(from, i);
		int rc = 0;

		while (k < in->n && memcmp(key_at(in, k), key, from->key_bytes) < 0)
			k++;
		if (k == in->n || memcmp(key_at(in, k), key, from->key_bytes) != 0)
			rc = value ? map_put(fd, key, value) : map_delete(fd, key);
		if (rc)
			return rc;
	}
	return 0;
}

static struct content content_of_members(const struct members *m)
{
	return (struct content){ m->list, m->n, sizeof(*m->list), sizeof(m->list->key) };
}

static struct content content_of_locals(const struct locals *l)
{
	return (struct content){ l->list, l->n, sizeof(*l->list), sizeof(*l->list) };
}

/* First what goes. A map that is half done has no more than the old and the new together. */
static int fill(struct drop_bpf *d, const struct members *members, const struct locals *locals)
{
	const struct content m = content_of_members(members), l = content_of_locals(locals);
	const struct content had_m = content_of_members(&d->members);
	const struct content had_l = content_of_locals(&d->locals);
	static const uint8_t one = 1;
	int rc = move(d->members_fd, &had_m, &m, NULL);

	if (!rc)
		rc = move(d->locals_fd, &had_l, &l, NULL);
	if (!rc)
		rc = move(d->locals_fd, &l, &had_l, &one);
	memset(d->counts, 0, d->cpus * sizeof(*d->counts));
	return rc ? rc : move(d->members_fd, &m, &had_m, d->counts);
}

/* --- Where ---------------------------------------------------------------------------------- */

static bool is_on(const struct drop_devices *on, uint64_t made)
{
	for (size_t i = 0; i < on->n; i++) {
		if (on->list[i].made == made)
			return true;
	}
	return false;
}

static bool has_place(const struct drop_bpf *d, uint64_t made)
{
	for (size_t i = 0; i < d->places_n; i++) {
		if (d->places[i].made == made)
			return true;
	}
	return false;
}

static void leave_others(struct drop_bpf *d, const struct drop_devices *on)
{
	size_t kept = 0;

	for (size_t i = 0; i < d->places_n; i++) {
		if (is_on(on, d->places[i].made))
			d->places[kept++] = d->places[i];
		else
			close_fd(&d->places[i].fd);
	}
	d->places_n = kept;
}

static int go_to(struct drop_bpf *d, const struct drop_wish *wish, struct errmsg *ret_err)
{
	for (size_t i = 0; i < wish->on->n; i++) {
		const struct drop_device *const dev = &wish->on->list[i];
		uint8_t mac[6];
		int fd;

		if (has_place(d, dev->made))
			continue;
		fd = attach(d, dev->ifindex, netview_link_mac(wish->view, dev->ifindex, mac));
		if (fd == -ENODEV) /* it went; its event is under way */
			continue;
		if (fd < 0)
			return errmsg(ret_err, fd, "the program cannot be put at %s: %s", dev->name,
				      strerror(-fd));
		d->places[d->places_n++] = (struct place){ dev->made, fd };
	}
	return 0;
}

/* --- Operations ----------------------------------------------------------------------------- */

/* Maps have these now. */
static void adopt(struct drop_bpf *d, const struct members *m, const struct locals *l,
		  struct shield_rule *rules, size_t rules_n)
{
	free(d->members.list);
	free(d->locals.list);
	free(d->rules);
	d->members = *m;
	d->locals = *l;
	d->rules = rules;
	d->rules_n = rules_n;
}

/* After -Exxx the maps may have more than is known here: remove() clears them. */
static int change(struct drop_bpf *d, const struct drop_wish *wish, struct errmsg *ret_err)
{
	struct shield_rule *rules = calloc(wish->rules_n + 1, sizeof(*rules));
	struct members members = { 0 };
	struct locals locals = { 0 };
	int rc = rules ? members_of(wish->rules, wish->rules_n, &members) : -ENOMEM;

	if (!rc)
		rc = locals_of(wish->view, &locals);
	if (!rc)
		rc = fill(d, &members, &locals);
	if (rc) {
		free(rules);
		free(members.list);
		free(locals.list);
		return errmsg(ret_err, rc, "the map of what is dropped: %s", strerror(-rc));
	}
	if (wish->rules_n)
		memcpy(rules, wish->rules, wish->rules_n * sizeof(*rules));
	adopt(d, &members, &locals, rules, wish->rules_n);
	return 0;
}

static int bpf_set(struct drop *drop, const struct drop_wish *wish, struct errmsg *ret_err)
{
	static const struct drop_devices nowhere;
	struct drop_bpf *const d = self(drop);
	int rc;

	leave_others(d, wish->rules_n ? wish->on : &nowhere);
	rc = change(d, wish, ret_err);
	if (rc)
		leave_others(d, &nowhere);
	return rc || !wish->rules_n ? rc : go_to(d, wish, ret_err);
}

static int bpf_remove(struct drop *drop, struct errmsg *ret_err)
{
	static const struct drop_devices nowhere;
	struct drop_bpf *const d = self(drop);
	struct dropprog_key key;
	struct ipaddr addr;

	leave_others(d, &nowhere);
	map_clear(d->members_fd, &key);
	map_clear(d->locals_fd, &addr);
	d->members.n = d->locals.n = d->rules_n = 0;
	return 0;
}

static bool bpf_stands(const struct drop *drop)
{
	return ((const struct drop_bpf *)drop)
		->members.n; /* without a device too: they have counted */
}

static int bpf_counts(struct drop *drop, struct shield_stat **ret_stats, size_t *ret_n)
{
	struct drop_bpf *const d = self(drop);
	struct shield_stat *stats = calloc(2 * d->rules_n + 1, sizeof(*stats));
	size_t n = 0;

	if (!stats)
		return -ENOMEM;
	for (size_t i = 0; i < 2 * d->rules_n; i++)
		stats[i] = (struct shield_stat){ .rule = d->rules[i / 2], .ipv6 = i % 2 };
	for (size_t i = 0; i < d->members.n; i++) {
		const struct member *const m = &d->members.list[i];
		struct shield_stat *const s = &stats[2 * m->rule + (m->key.family == 6)];

		if (map_get(d->members_fd, &m->key, d->counts))
			continue;
		for (size_t cpu = 0; cpu < d->cpus; cpu++) {
			s->packets += d->counts[cpu].packets;
			s->bytes += d->counts[cpu].bytes;
		}
	}
	for (size_t i = 0; i < 2 * d->rules_n; i++) {
		stats[i].early = stats[i].packets;
		if (ruletext_in_family(&stats[i].rule, stats[i].ipv6))
			stats[n++] = stats[i];
	}
	*ret_stats = stats;
	*ret_n = n;
	return 0;
}

static void bpf_free(struct drop *drop)
{
	static const struct drop_devices nowhere;
	struct drop_bpf *const d = self(drop);

	leave_others(d, &nowhere);
	close_fd(&d->prog_fd[0]);
	close_fd(&d->prog_fd[1]);
	close_fd(&d->members_fd);
	close_fd(&d->locals_fd);
	free(d->counts);
	free(d->members.list);
	free(d->locals.list);
	free(d->rules);
	free(d);
}

static const struct drop_ops bpf_ops = {
	.check = bpf_check,
	.set = bpf_set,
	.remove = bpf_remove,
	.stands = bpf_stands,
	.counts = bpf_counts,
	.free = bpf_free,
	.counts_last = true,
	.by_address = true,
};

int drop_bpf_new(struct drop **ret_drop, struct errmsg *ret_err)
{
	struct drop_bpf *d = calloc(1, sizeof(*d));

	if (!d)
		return errmsg(ret_err, -ENOMEM, "shield: %s", strerror(ENOMEM));
	d->drop.ops = &bpf_ops;
	d->locals_fd = d->members_fd = d->prog_fd[0] = d->prog_fd[1] = -1;
	*ret_drop = &d->drop;
	return 0;
}
