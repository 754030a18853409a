/* SPDX-License-Identifier: Apache-2.0 */
/* What a listener's configuration means for its service: users and groups become numbers. */
#pragma once
#include <stdbool.h>

#include "base/errmsg.h"
#include "config/config.h"
#include "service/options.h"

/* may_switch: processes can be another user's. -EINVAL, -ENOENT, -EPERM. Reads the user database. */
int options_of_listener(const struct config_listener *l, bool may_switch,
			struct service_options *ret_options, struct errmsg *ret_err);
