/* SPDX-License-Identifier: Apache-2.0 */
/* What a program tells us about its connection in between its octets: one octet, with which any descriptor comes
 * (SCM_RIGHTS). The kernel keeps such a message apart from the text behind it, and nobody takes the
 * descriptor. So an order stands in line with the text, and costs no question and answer. proto/PROTOCOL.md.
 */
#pragma once

enum stream_order {
	STREAM_CORK = 'C',
	STREAM_UNCORK = 'c',
	STREAM_NAGLE = 'N',
	STREAM_NO_NAGLE = 'n',
	STREAM_RESETS = 'R', /* its last close, or its holder's end, is a RST: SO_LINGER of 0 */
	STREAM_ENDS = 'r', /* is an end like another */
	STREAM_URGENT = 'U', /* the next octet, and all in front of it, is urgent (RFC 6093) */
	STREAM_NOT_URGENT = 'u', /* it is not */
};
