/* SPDX-License-Identifier: Apache-2.0 */
/* Plays packet scripts against one engine in virtual time.
 *
 * usage: run [--rest] [--edges FILE] SCRIPT...	plays; FILE gets the transitions taken, one a line;
 *				--rest: all connections are at rest between any two lines, if they may
 *	  run --legal			prints the transitions of the state diagram
 *
 * A line is an optional `+SECONDS` (or +20ms, +5us), which moves the clock, and then one thing that is
 * done or expected at that instant. Timers that fall due on the way fire at their own instants, those
 * of the instant itself before the line's action. A segment that the engine sends must be expected
 * at the instant at which it is sent, in its order, or the script fails; there is no tolerance.
 *
 * Segments: FLAGS SEQ:END [ack N] [win N] [urg N] [piece N] [ttl N] [tos N] [id N] [label zero|same] [layout N] [<options>]
 *	< S 0:1 win 8000 <mss 1460,wscale 7,TS val 100 ecr 0>	arrives. END - SEQ counts SYN and FIN
 *	<< . 1:101 ack 1		arrives, and the next line arrives in the same batch
 *	> S. 0:1 ack 1 <mss 1460>	was sent. win, urg, piece, ttl, tos, id, label, layout and options are compared when
 *					the line has them (id: `zero`, or counted from the first `id N`; label: `same` is not 0 and the flow's first); <> means no options; flags: F S R P . U E W, - none
 *	> *				any segment, at this instant; > S * any with these flags
 *   Numbers count from the ISN of their direction; `=N` is a plain 32-bit number. Text needs no
 *   writing: each octet is a function of its place and is compared wherever it shows; a segment
 *   options: mss N, wscale N, sackOK, TS val N ecr N, uto N or Nm (minutes), sack LEFT:RIGHT ... (counted as the ack is), fo [N|last|*] (Fast Open
 *   cookie: none, a number, which was sent last, any). Text
 *   marked `other` arrives with different octets. TS values sent count from our first one; `TS val *`
 *   takes any, `ecr last` echoes the latest one sent. win defaults to 65535 on what arrives.
 *
 * The world: family 6; conn N (connection N: peer port 40000 + N; listen, <, > and all else mean this
 *   one); from ADDR [port N] and to ADDR [port N] (its endpoints); mtu N; isn N (moves the clock to
 *   where our ISN would be N), isn before (numbers count from that of our SYN before the last); peer_isn N; set KEY VALUE (struct tcp_params, for what opens later; rto_min_us
 *   is 1 s here, personality 2: plain; 0 is linux, 1 freebsd); apply (to this connection, now); engine KEY VALUE (struct engine_config)
 * Calls: listen [backlog N] [max N] [room N] [addr ADDR], room N (of the listener), unlisten, connect [port 0] [text N] (sent
 *   before the SYN leaves), send N [takes N] [urgent], read N
 *   (exactly N wait) or read N part, consume N (in place), listener-apply, unserved-apply (for no listener), close [operator], abort [operator], stop-reading, release,
 *   direct on|off [take N] [sends] (and passes as many on as find room), icmp KEY [seq N] [mtu N] [quoted N] (an error of icmp_errors.def that quotes our segment
 *   at N, of so many octets), link-mtu N (of a running connection's interface), rest (who may goes to rest), hold SECONDS (what
 *   falls due fires, and the next line comes before anything is pulled: a late driver);
 *   each may end in `fails ENAME`
 * Short cuts: establish [active] [win N] [rtt SECONDS] [<options>] (a whole handshake; mss 1000), permute N LEN [overlap N]
 *   (N segments in every order), repeat N [batch] FLAGS SEQ:END ... (the same arrives N times), holes N LEN
 *   (N segments with holes between them, then all of it again), drain (what was sent needs no line)
 * Checks: state NAME, status KEY VALUE (struct conn_status; snd_una, snd_nxt, rcv_nxt relative), counter
 *   KEY N or KEY >N, find-serial N, report opened|readable|writable|peer_closed|all_acked|closed [REASON]|urgent|in_doubt (each report is
 *   checked off once), report nothing, transition FROM -> TO ["CAUSE" ["RULE"]], transition none,
 *   refused ["RULE"], eof yes|no, delivered N, timer SECONDS|none, nothing (no segment was sent)
 *
 * Always checked: engine_check() after each step, text, that transitions are a path of the diagram,
 * that the end is told once, that no segment remains unexpected.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "play.h"

/* What was sent on the way to here and was not waited for is a failure, unless the line drains. */
static void check_unexpected(void)
{
	const char *const name = w.line.argv[0];
	char shown[240];

	if (!w.sent_n || w.sent[0].at.us == w.now.us || !strcmp(name, "drain") ||
	    !strcmp(name, ">"))
		return;
	segment_format(w.sent[0].peer, '>', &w.sent[0].seg, shown);
	fail("a segment was sent %.6f s ago that no line expects\n\tgot       %s",
	     (double)(w.now.us - w.sent[0].at.us) / 1e6, shown);
}

static void play_line(void)
{
	line_cut(&w.line);
	if (!w.line.argc)
		return;
	if (*w.line.argv[0] == '+') {
		const uint64_t us = duration(w.line.argv[0] + 1);

		if (us) {
			world_engine();
			advance(vtime_add(w.now, us));
		}
		w.line.argc--;
		memmove(w.line.argv, w.line.argv + 1, (size_t)w.line.argc * sizeof(*w.line.argv));
		if (!w.line.argc)
			return;
	}
	check_unexpected();
	command();
}

static void play_file(const char *path, bool rest)
{
	FILE *const f = fopen(path, "r");

	world_begin(path);
	w.rest = rest;
	if (!f)
		fail("cannot be opened");
	while (fgets(w.line.text, sizeof(w.line.text), f)) {
		w.line.no++;
		w.line.text[strcspn(w.line.text, "\n")] = '\0';
		play_line();
	}
	fclose(f);
	world_end();
}

static void print_edges(FILE *to, bool legal)
{
	for (unsigned a = 0; a < ST__COUNT; a++)
		for (unsigned b = 0; b < ST__COUNT; b++)
			if (legal ? state_may_follow((enum tcp_state)a, (enum tcp_state)b)
				  : w.edges[a] >> b & 1)
				fprintf(to, "%s -> %s\n", state_name((enum tcp_state)a),
					state_name((enum tcp_state)b));
}

int main(int argc, char **argv)
{
	const char *edges = NULL;
	bool rest = false;
	int i = 1;

	if (argc == 2 && !strcmp(argv[1], "--legal")) {
		print_edges(stdout, true);
		return 0;
	}
	if (i < argc && !strcmp(argv[i], "--rest")) {
		rest = true;
		i++;
	}
	if (argc > i + 2 && !strcmp(argv[i], "--edges")) {
		edges = argv[i + 1];
		i += 2;
	}
	if (i >= argc) {
		fprintf(stderr, "usage: run [--rest] [--edges FILE] SCRIPT...\n");
		return 2;
	}
	for (; i < argc; i++)
		play_file(argv[i], rest);
	if (edges) {
		FILE *const f = fopen(edges, "w");

		if (!f) {
			fprintf(stderr, "%s cannot be written\n", edges);
			return 1;
		}
		print_edges(f, false);
		fclose(f);
	}
	return 0;
}
