/* SPDX-License-Identifier: Apache-2.0 */
/* Segment lines of a script: injecting, expecting, and showing them. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "play.h"

/* Text is a function of its place in the stream, so that every octet of every segment is checked
 * without the script saying so. The two directions differ, and so do neighbours at any distance
 * that a window or a wrap could confuse.
 */
uint8_t octet_at(uint32_t rel, bool theirs)
{
	const uint32_t x = (rel ^ (theirs ? 0x5bd1e995U : 0)) * (uint64_t)0x9e3779b1U & 0xffffffffU;

	return (uint8_t)(x >> 24);
}

struct peer *peer_of(const struct flow *f)
{
	for (unsigned i = 0; i < CONNS_MAX; i++)
		if (flow_eq(&w.peers[i].flow, f))
			return &w.peers[i];
	return NULL;
}

/* Appends to buf of 240 octets, at *at. */
static void put(char *buf, size_t *at, const char *fmt, ...) PRINTF_LIKE(3, 4);
static void put(char *buf, size_t *at, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	const int n = vsnprintf(buf + *at, 240 - *at, fmt, ap);
	va_end(ap);
	*at += n < 0 ? 0 : (size_t)n < 240 - *at ? (size_t)n : 239 - *at;
}

WRAPS static void put_options(char *buf, size_t *at, const struct peer *p, char dir,
			      const struct segment *s)
{
	const seqno base = dir == '>' ? p->irs : p->iss;
	const char *sep = "";

	put(buf, at, " <");
	if (s->options & OPT_MSS) {
		put(buf, at, "mss %u", s->mss);
		sep = ",";
	}
	if (s->options & OPT_WSCALE) {
		put(buf, at, "%swscale %u", sep, s->wscale);
		sep = ",";
	}
	if (s->options & OPT_SACK_PERMITTED) {
		put(buf, at, "%ssackOK", sep);
		sep = ",";
	}
	if (s->options & OPT_TIMESTAMPS) {
		const uint32_t val = dir == '>' ? s->ts_val - p->ts_first : s->ts_val;
		const uint32_t ecr = dir == '<' ? s->ts_ecr - p->ts_first : s->ts_ecr;

		put(buf, at, "%sTS val %u ecr %u", sep, val, ecr);
		sep = ",";
	}
	if (s->options & OPT_FAST_OPEN) {
		put(buf, at, "%sfo", sep);
		for (unsigned i = 0; i < s->fast_open_n; i++)
			put(buf, at, "%s%02x", i ? "" : " ", s->fast_open[i]);
		sep = ",";
	}
	if (s->options & OPT_USER_TIMEOUT) {
		put(buf, at, "%suto %u%s", sep, s->user_timeout & 0x7fffU,
		    s->user_timeout & 0x8000 ? "m" : "");
		sep = ",";
	}
	for (unsigned i = 0; i < s->sacks_n && s->options & OPT_SACK; i++, sep = " ")
		put(buf, at, "%s%s%u:%u", sep, i ? "" : "sack ", seq_sub(s->sacks[i].left, base),
		    seq_sub(s->sacks[i].right, base));
	put(buf, at, ">");
}

void segment_format(const struct peer *p, char dir, const struct segment *s, char buf[static 240])
{
	static const char letters[] = "FSRP.UEW";
	const seqno ours = p->iss_known ? p->iss : (seqno){ 0 };
	const seqno mine = dir == '>' ? ours : p->irs, other = dir == '>' ? p->irs : ours;
	size_t at = 0;

	put(buf, &at, "%c ", dir);
	for (unsigned i = 0; i < 8; i++)
		if (s->ctl >> i & 1)
			put(buf, &at, "%c", letters[i]);
	if (!s->ctl)
		put(buf, &at, "-");
	put(buf, &at, " %u:%u", seq_sub(s->seq, mine), seq_sub(seq_add(s->seq, seg_len(s)), mine));
	if (s->ctl & CTL_ACK)
		put(buf, &at, " ack %u", seq_sub(s->ack, other));
	put(buf, &at, " win %u", s->wnd);
	if (s->ctl & CTL_URG)
		put(buf, &at, " urg %u", s->urgent);
	if (s->piece_bytes)
		put(buf, &at, " piece %u", s->piece_bytes);
	if (s->options)
		put_options(buf, &at, p, dir, s);
}

void segment_log(const struct peer *p, char dir, const struct segment *s)
{
	char *const to = w.log[w.log_n++ % LOG_MAX];
	char text[240];
	const double t = (double)(w.now.us - w.start.us) / 1e6;

	segment_format(p, dir, s, text);
	snprintf(to, sizeof(w.log[0]), "%12.6f conn %u %.190s", t, (unsigned)(p - w.peers) + 1,
		 text);
}

/* `=N` is absolute; N counts from base. */
static seqno seq_parse(const char *word, seqno base)
{
	char *end;
	const bool absolute = *word == '=';
	const uint64_t n = strtoull(word + absolute, &end, 10);

	if (end == word + absolute || (*end && *end != ':'))
		fail("%s is no sequence number", word);
	return absolute ? (seqno){ (uint32_t)n } : seq_add(base, (uint32_t)n);
}

WRAPS static uint32_t ecr_parse(const char *word, const struct peer *p)
{
	if (!strcmp(word, "last"))
		return p->ts_last;
	return p->ts_first + (uint32_t)number(word);
}

/* sack LEFT:RIGHT [LEFT:RIGHT ...], counted as the ack of the line is. */
static void sacks_parse(const char *opt, char dir, const struct peer *p, struct segment *s)
{
	const seqno base = dir == '>' ? p->irs : p->iss;
	unsigned left, right;
	int n;

	s->options |= OPT_SACK;
	for (opt += strspn(opt, " ") + strlen("sack");
	     sscanf(opt, " %u:%u%n", &left, &right, &n) == 2; opt += n) {
		if (s->sacks_n == SEG_SACKS)
			fail("at most %d blocks", SEG_SACKS);
		s->sacks[s->sacks_n++] = (struct sack_block){ seq_add(base, left),
							      seq_add(base, right) };
	}
	if (*opt || !s->sacks_n)
		fail("sack is written: sack LEFT:RIGHT ...");
}

/* A Fast Open cookie: none, `last` (which the engine sent last, to whomever), `*` (any), or a number. */
static void fast_open_parse(const char *word, struct segment *s)
{
	s->options |= OPT_FAST_OPEN;
	s->fast_open_n = *word ? 8 : 0;
	if (!strcmp(word, "*"))
		s->fast_open_n = UINT8_MAX;
	else if (!strcmp(word, "last"))
		memcpy(s->fast_open, w.fast_open, 8);
	else if (*word)
		for (unsigned i = 0; i < 8; i++)
			s->fast_open[i] = (uint8_t)(number(word) >> (56 - 8 * i));
}

/* One option of the list. *any_val: the line wrote `val *`. */
WRAPS static void option_parse(char *opt, char dir, const struct peer *p, struct segment *s,
			       bool *any_val)
{
	char name[16] = "", a[24] = "", k[8] = "", b[24] = "";
	const int n = sscanf(opt, " %15s %23s %7s %23s", name, a, k, b);

	if (!strcmp(name, "nop") || !strcmp(name, "eol"))
		return;
	if (!strcmp(name, "mss") && n == 2) {
		s->options |= OPT_MSS;
		s->mss = (uint16_t)number(a);
	} else if (!strcmp(name, "wscale") && n == 2) {
		s->options |= OPT_WSCALE;
		s->wscale = (uint8_t)number(a);
	} else if (!strcmp(name, "uto") && n == 2) { /* N seconds, Nm minutes */
		const size_t len = strlen(a);
		const bool minutes = a[len - 1] == 'm';

		s->options |= OPT_USER_TIMEOUT;
		a[minutes ? len - 1 : len] = '\0';
		s->user_timeout = (uint16_t)(number(a) | (minutes ? 0x8000 : 0));
	} else if (!strcmp(name, "sackOK")) {
		s->options |= OPT_SACK_PERMITTED;
	} else if (!strcmp(name, "sack")) {
		sacks_parse(opt, dir, p, s);
	} else if (!strcmp(name, "fo")) {
		fast_open_parse(n == 2 ? a : "", s);
	} else if (!strcmp(name, "TS")) {
		char val[24];

		if (sscanf(opt, " TS val %23s ecr %23s", val, b) != 2)
			fail("TS is written: TS val N ecr N");
		s->options |= OPT_TIMESTAMPS;
		*any_val = !strcmp(val, "*");
		s->ts_val = *any_val ? 0 : (uint32_t)number(val) + (dir == '>' ? p->ts_first : 0);
		s->ts_ecr = dir == '<' ? ecr_parse(b, p) : (uint32_t)number(b);
	} else {
		fail("%s is no option", opt);
	}
}

/* The options of the line, when it has any. False: the line says nothing of options. */
static bool options_parse(char dir, const struct peer *p, struct segment *s, bool *any_val)
{
	for (int i = 2; i < w.line.argc; i++) {
		char copy[200], *save = NULL;
		const char *word = w.line.argv[i];

		if (*word != '<')
			continue;
		snprintf(copy, sizeof(copy), "%s", word + 1);
		copy[strlen(copy) - 1] = '\0';
		for (char *o = strtok_r(copy, ",", &save); o; o = strtok_r(NULL, ",", &save))
			option_parse(o, dir, p, s, any_val);
		return true;
	}
	return false;
}

/* What the line says, in a segment. Its length goes to *ret_len: text octets. */
static struct segment line_parse(char dir, const struct peer *p, uint32_t *ret_len)
{
	struct segment s = { .flow = p->flow, .ttl = 64, .link_mtu = w.link_mtu };
	const seqno ours = p->iss_known ? p->iss : (seqno){ 0 };
	const seqno mine = dir == '>' ? ours : p->irs, other = dir == '>' ? p->irs : ours;
	const char *const colon = w.line.argc > 2 ? strchr(w.line.argv[2], ':') : NULL;

	if (!colon)
		fail("a segment is written: FLAGS SEQ:END ...");
	s.ctl = flags_parse(w.line.argv[1]);
	s.seq = seq_parse(w.line.argv[2], mine);
	const uint32_t len = seq_sub(seq_parse(colon + 1, mine), s.seq);
	const uint32_t ctl_len = (s.ctl & CTL_SYN ? 1U : 0U) + (s.ctl & CTL_FIN ? 1U : 0U);

	if (len < ctl_len || len > 70000)
		fail("%s: SYN and FIN count one each", w.line.argv[2]);
	*ret_len = len - ctl_len;
	if (value_of("ack"))
		s.ack = seq_parse(value_of("ack"), other);
	else if (s.ctl & CTL_ACK)
		fail("a segment with . has an ack");
	if (value_of("win"))
		s.wnd = (uint16_t)number(value_of("win"));
	if (value_of("urg"))
		s.urgent = (uint16_t)number(value_of("urg"));
	if (value_of("tos"))
		s.tos = (uint8_t)number(value_of("tos"));
	if (value_of("piece"))
		s.piece_bytes = (uint16_t)number(value_of("piece"));
	return s;
}

void segment_inject(bool more_follows)
{
	static uint8_t text[70000];
	bool any = false;
	uint32_t len;
	struct peer *const p = w.peer;
	struct segment s = line_parse('<', p, &len);
	struct delivery d = { .text = { NULL, 0 } };
	const uint32_t first = seq_sub(s.seq, p->irs) + (s.ctl & CTL_SYN ? 1U : 0U);

	if (!value_of("win"))
		s.wnd = 65535;
	options_parse('<', p, &s, &any);
	for (uint32_t i = 0; i < len; i++)
		text[i] = octet_at(first + i, true) ^ (has_word("other") ? 0xff : 0);
	if (len) {
		/* Two spans, as a ring or a fragment gives them; only one piece is delivered directly. */
		const uint32_t cut = len > 2 && !w.direct ? len / 3 : len;

		s.text[0] = (struct span){ text, cut };
		s.text[1] = (struct span){ text + cut, len - cut };
		s.spans_n = len > cut ? 2 : 1;
	}
	segment_log(p, '<', &s);
	engine_input(w.e, w.now, &s, &d);
	deliver(&d);
	if (!more_follows)
		pump();
}

/* As much as it gets, as long as there is room. */
static uint32_t answer(struct peer *p, uint32_t n)
{
	static uint8_t buf[1 << 16];
	size_t taken = 0;

	for (uint32_t i = 0; i < n; i++)
		buf[i] = octet_at((uint32_t)p->sent_octets + 1 + i, false);
	if (conn_pass_on(w.e, w.now, p->id, buf, n, 0, &taken))
		return 0;
	p->sent_octets += taken;
	return (uint32_t)taken;
}

void deliver(const struct delivery *d)
{
	uint32_t take = d->text.len < w.direct_take ? d->text.len : w.direct_take;

	if (!d->text.len)
		return;
	struct peer *p = NULL;

	for (unsigned i = 0; i < CONNS_MAX; i++)
		if (w.peers[i].have_id && w.peers[i].id.slot == d->id.slot &&
		    w.peers[i].id.gen == d->id.gen)
			p = &w.peers[i];
	if (!p)
		fail("text was delivered for a connection that the script does not know");
	if (w.direct_sends)
		take = answer(p, take);
	for (uint32_t i = 0; i < take; i++)
		if (d->text.base[i] != octet_at((uint32_t)p->read_octets + 1 + i, true))
			fail("octet %llu was delivered wrong",
			     (unsigned long long)p->read_octets + i);
	p->read_octets += take;
	p->delivered += take;
	conn_delivered(w.e, w.now, d, take);
}

static void options_compare(const struct segment *want, const struct segment *got, bool any_val,
			    bool *ok)
{
	*ok &= want->options == got->options;
	if (want->options & OPT_MSS)
		*ok &= want->mss == got->mss;
	if (want->options & OPT_USER_TIMEOUT)
		*ok &= want->user_timeout == got->user_timeout;
	if (want->options & OPT_WSCALE)
		*ok &= want->wscale == got->wscale;
	if (want->options & OPT_SACK)
		*ok &= want->sacks_n == got->sacks_n &&
		       !memcmp(want->sacks, got->sacks, want->sacks_n * sizeof(want->sacks[0]));
	if (want->options & OPT_FAST_OPEN && want->fast_open_n != UINT8_MAX)
		*ok &= want->fast_open_n == got->fast_open_n &&
		       !memcmp(want->fast_open, got->fast_open, want->fast_open_n);
	if (want->options & OPT_TIMESTAMPS)
		*ok &= (any_val || want->ts_val == got->ts_val) && want->ts_ecr == got->ts_ecr;
}

static struct sent take_sent(struct peer *p)
{
	for (unsigned i = 0; i < w.sent_n; i++) {
		const struct sent got = w.sent[i];

		if (got.peer != p)
			continue;
		w.sent_n--;
		memmove(&w.sent[i], &w.sent[i + 1], (w.sent_n - i) * sizeof(w.sent[0]));
		return got;
	}
	fail("expected a segment, got none");
}

/* `zero`, or a number that counts from the first that was not 0. */
static bool id_is(struct peer *p, const char *want, uint16_t got)
{
	if (!strcmp(want, "zero"))
		return got == 0;
	if (!p->id_known)
		p->id_first = (uint16_t)(got - number(want));
	p->id_known = true;
	return number(want) == (uint16_t)(got - p->id_first);
}

/* `zero`, or `same`: not 0, and as in all others of that flow. */
static bool label_is(const struct peer *p, const char *want, uint32_t got)
{
	return strcmp(want, "same") ? got == 0 : got && got == p->label && got < 1U << 20;
}

void segment_expect(void)
{
	struct peer *const p = w.peer;
	const struct sent got = take_sent(p);
	char shown[240];
	uint32_t len;
	bool any = false, ok = true;

	if (got.seg.options & OPT_FAST_OPEN && got.seg.fast_open_n == 8)
		memcpy(w.fast_open, got.seg.fast_open, 8);
	/* The window of a segment from the wire is what it says; the text is already checked. */
	segment_format(p, '>', &got.seg, shown);
	if (got.at.us != w.now.us)
		fail("sent at another time, %.6f s earlier\n\tgot       %s",
		     (double)(w.now.us - got.at.us) / 1e6, shown);
	/* `> *` takes any segment, `> S *` any with these flags. */
	if (has_word("*")) {
		const uint8_t least = strcmp(w.line.argv[1], "*") ? flags_parse(w.line.argv[1]) : 0;

		if ((got.seg.ctl & least) != least)
			fail("segment differs\n\tgot       %s", shown);
		return;
	}
	struct segment want = line_parse('>', p, &len);

	ok = want.ctl == got.seg.ctl && seq_eq(want.seq, got.seg.seq) && len == got.len;
	ok = ok && (!(want.ctl & CTL_ACK) || seq_eq(want.ack, got.seg.ack));
	ok = ok && (!value_of("win") || want.wnd == got.seg.wnd);
	ok = ok && (!value_of("urg") || want.urgent == got.seg.urgent);
	ok = ok && (!value_of("piece") || want.piece_bytes == got.seg.piece_bytes);
	ok = ok && (!value_of("ttl") || number(value_of("ttl")) == got.seg.ttl);
	ok = ok && (!value_of("tos") || number(value_of("tos")) == got.seg.tos);
	ok = ok && (!value_of("id") || id_is(p, value_of("id"), got.seg.ip_id));
	p->label = p->label ? p->label : got.seg.flow_label;
	ok = ok && (!value_of("label") || label_is(p, value_of("label"), got.seg.flow_label));
	ok = ok && (!value_of("layout") || number(value_of("layout")) == got.seg.layout);
	if (options_parse('>', p, &want, &any))
		options_compare(&want, &got.seg, any, &ok);
	if (!ok)
		fail("segment differs\n\tgot       %s ttl %u tos %u", shown, got.seg.ttl,
		     got.seg.tos);
}
