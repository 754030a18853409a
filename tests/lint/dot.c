/* SPDX-License-Identifier: Apache-2.0 */
/* Prints the state diagram, for graphviz, from the table that tcb_enter() asserts. */
#include <stdio.h>

#include "tcp/state.h"

int main(void)
{
	puts("digraph tcp {");
	for (int a = 0; a < ST__COUNT; a++)
		for (int b = 0; b < ST__COUNT; b++)
			if (state_may_follow((enum tcp_state)a, (enum tcp_state)b))
				printf("\t\"%s\" -> \"%s\";\n", state_name((enum tcp_state)a),
				       state_name((enum tcp_state)b));
	puts("}");
	return 0;
}
