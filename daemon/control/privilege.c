/* SPDX-License-Identifier: Apache-2.0 */
#include "control/privilege.h"

#include <cap-ng.h>
#include <errno.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <unistd.h>

int privilege_check(struct errmsg *ret_err)
{
	capng_clear(CAPNG_SELECT_ALL);
	if (capng_get_caps_process() < 0)
		return errmsg(ret_err, -EIO, "cannot read the capabilities of this process");
	if (!capng_have_capability(CAPNG_EFFECTIVE, CAP_NET_ADMIN) ||
	    !capng_have_capability(CAPNG_EFFECTIVE, CAP_NET_RAW))
		return errmsg(
			ret_err, -EPERM,
			"tcpfsmd needs CAP_NET_ADMIN and CAP_NET_RAW: start it by systemctl start "
			"tcpfsmd, or as root");
	return 0;
}

bool privilege_may_switch_user(void)
{
	return capng_have_capability(CAPNG_EFFECTIVE, CAP_SETUID) &&
	       capng_have_capability(CAPNG_EFFECTIVE, CAP_SETGID) &&
	       capng_have_capability(CAPNG_EFFECTIVE, CAP_KILL);
}

int privilege_drop(struct errmsg *ret_err)
{
	const bool bounding = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP);
	capng_type_t types = CAPNG_EFFECTIVE | CAPNG_PERMITTED;
	capng_select_t select = CAPNG_SELECT_CAPS;

	/* iptables-restore and nft run as our children. root's children get the bounding set; those of another
	 * user get what is ambient, which must be inheritable as well. */
	if (geteuid() != 0) {
		types |= CAPNG_INHERITABLE | CAPNG_AMBIENT;
		select |= CAPNG_SELECT_AMBIENT;
	}
	if (bounding) {
		types |= CAPNG_BOUNDING_SET;
		select |= CAPNG_SELECT_BOUNDS;
	}
	capng_clear(CAPNG_SELECT_ALL);
	if (capng_updatev(CAPNG_ADD, types, CAP_NET_ADMIN, CAP_NET_RAW, -1) < 0 ||
	    capng_apply(select) < 0)
		return errmsg(ret_err, -EPERM, "cannot give up capabilities");
	if (geteuid() == 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 &&
	    errno != EINVAL)
		return errmsg(ret_err, -errno, "cannot clear the ambient capabilities");
	return 0;
}
