/* SPDX-License-Identifier: Apache-2.0 */
/* The control protocol, whole: PROTOCOL.md says what it is. */
#pragma once
#include "proto/client.h"
#include "proto/filter.h"
#include "proto/message.h"
#include "proto/method.h"
#include "proto/params.h"
#include "proto/render.h"
