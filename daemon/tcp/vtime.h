/* SPDX-License-Identifier: Apache-2.0 */
/* Virtual time: the only clock the core knows. The caller says what time it is. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

typedef struct vtime {
	uint64_t us;
} vtime;

#define VTIME_NEVER ((vtime){ UINT64_MAX })

static inline vtime vtime_add(vtime t, uint64_t us)
{
	return (vtime){ t.us + us };
}

static inline bool vtime_before(vtime a, vtime b)
{
	return a.us < b.us;
}

static inline vtime vtime_min(vtime a, vtime b)
{
	return vtime_before(a, b) ? a : b;
}
