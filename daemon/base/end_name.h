/* SPDX-License-Identifier: Apache-2.0 */
/* The last word to who holds the other end of a UNIX socket: an errno, as the name of our end. He reads
 * it by getpeername(2), also after our end is closed. A UNIX socket itself can say ECONNRESET at most.
 */
#pragma once

/* "\0tcpfsm end INODE ERRNO". An error of 0 is nothing; a socket has one name, the first. */
void end_name_set(int fd, int error);
