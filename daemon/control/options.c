/* SPDX-License-Identifier: Apache-2.0 */
#include "control/options.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/macros.h"

static bool is_exec(const struct config_listener *l)
{
	return !strncmp(l->service, "exec:", 5);
}

/* A key that would be without effect: somebody may rely on it. */
static int check_exec_only(const struct config_listener *l, struct errmsg *ret_err)
{
	const char *const key = l->user[0]                  ? "User"
				: l->group[0]               ? "Group"
				: l->directory[0]           ? "WorkingDirectory"
				: l->environment[0]         ? "Environment"
				: l->limit_cpu_us           ? "LimitCPU"
				: l->limit_as_bytes         ? "LimitAS"
				: l->limit_nofile           ? "LimitNOFILE"
				: l->limit_fsize_bytes      ? "LimitFSIZE"
				: l->limit_nproc            ? "LimitNPROC"
				: l->max_processes_per_peer ? "MaxProcessesPerPeer"
							    : NULL;

	return key ? errmsg(ret_err, -EINVAL, "%s is only for exec services, not for %s", key,
			    l->service)
		   : 0;
}

/* Main thread: one at a time, so the static buffers of the database's functions do. */
static int find_user(const char *name, struct service_options *o, struct errmsg *ret_err)
{
	const struct passwd *const pw = getpwnam(name);

	if (!pw)
		return errmsg(ret_err, -ENOENT, "User=%s: there is no such user", name);
	if (strlen(pw->pw_name) >= sizeof(o->user) || strlen(pw->pw_dir) >= sizeof(o->home))
		return errmsg(ret_err, -EINVAL, "User=%s: name or home directory is too long",
			      name);
	o->setup.uid = pw->pw_uid;
	o->setup.gid = pw->pw_gid;
	memcpy(o->user, pw->pw_name, strlen(pw->pw_name) + 1);
	memcpy(o->home, pw->pw_dir, strlen(pw->pw_dir) + 1);
	return 0;
}

/* The groups that the user database gives to the user, or the one that was asked for. */
static int find_groups(const struct config_listener *l, struct service_options *o,
		       struct errmsg *ret_err)
{
	const struct group *const gr = l->group[0] ? getgrnam(l->group) : NULL;
	int n = SPAWN_GROUPS_MAX;

	if (l->group[0] && !gr)
		return errmsg(ret_err, -ENOENT, "Group=%s: there is no such group", l->group);
	if (gr)
		o->setup.gid = gr->gr_gid;
	if (!l->user[0]) {
		o->setup.groups[0] = o->setup.gid;
		o->setup.groups_n = 1;
		return 0;
	}
	if (getgrouplist(o->user, o->setup.gid, o->setup.groups, &n) < 0)
		return errmsg(ret_err, -E2BIG, "User=%s: it is in more than %d groups", l->user,
			      SPAWN_GROUPS_MAX);
	o->setup.groups_n = (uint32_t)n;
	return 0;
}

static int fill_identity(const struct config_listener *l, bool may_switch,
			 struct service_options *o, struct errmsg *ret_err)
{
	const char *const key = l->user[0] ? "User" : "Group";
	int rc = 0;

	if (!l->user[0] && !l->group[0])
		return 0;
	o->setup.uid = geteuid();
	if (l->user[0])
		rc = find_user(l->user, o, ret_err);
	if (!rc)
		rc = find_groups(l, o, ret_err);
	if (rc)
		return rc;
	o->setup.switch_user = o->setup.uid != geteuid() || o->setup.gid != getegid();
	if (o->setup.switch_user && !may_switch)
		return errmsg(ret_err, -EPERM,
			      "%s=%s: only a daemon that was started as root can start processes "
			      "of another user; this one has not the capabilities",
			      key, l->user[0] ? l->user : l->group);
	return 0;
}

static int fill_limits(const struct config_listener *l, struct service_options *o,
		       struct errmsg *ret_err)
{
	const struct {
		const char *key;
		int resource;
		uint64_t value;
	} limits[SPAWN__LIMITS] = {
		[SPAWN_CPU] = { "LimitCPU", RLIMIT_CPU, (l->limit_cpu_us + 999999) / 1000000 },
		[SPAWN_AS] = { "LimitAS", RLIMIT_AS, l->limit_as_bytes },
		[SPAWN_NOFILE] = { "LimitNOFILE", RLIMIT_NOFILE, l->limit_nofile },
		[SPAWN_FSIZE] = { "LimitFSIZE", RLIMIT_FSIZE, l->limit_fsize_bytes },
		[SPAWN_NPROC] = { "LimitNPROC", RLIMIT_NPROC, l->limit_nproc },
	};
	struct rlimit hard;

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
		o->setup.limits[i] = limits[i].value;
		if (limits[i].value &&
		    !prlimit(0, (enum __rlimit_resource)limits[i].resource, NULL, &hard) &&
		    limits[i].value > hard.rlim_max)
			return errmsg(ret_err, -EPERM,
				      "%s: %" PRIu64 " is above the limit that the daemon itself "
				      "was given, %" PRIu64,
				      limits[i].key, limits[i].value, (uint64_t)hard.rlim_max);
	}
	return 0;
}

int options_of_listener(const struct config_listener *l, bool may_switch,
			struct service_options *ret_options, struct errmsg *ret_err)
{
	struct service_options o = {
		.max_connections_per_peer = l->max_connections_per_peer,
		.max_processes = l->max_processes,
		.max_processes_per_peer = l->max_processes_per_peer,
		.kill_after_us = l->kill_after_us,
	};
	int rc;

	if (!is_exec(l))
		rc = check_exec_only(l, ret_err);
	else if (l->directory[0] && l->directory[0] != '/')
		rc = errmsg(ret_err, -EINVAL, "WorkingDirectory=%s: an absolute path is needed",
			    l->directory);
	else
		rc = fill_limits(l, &o, ret_err);
	if (!rc)
		rc = fill_identity(l, may_switch, &o, ret_err);
	if (rc)
		return rc;
	memcpy(o.setup.directory, l->directory, strlen(l->directory) + 1);
	memcpy(o.environment, l->environment, strlen(l->environment) + 1);
	*ret_options = o;
	return 0;
}
