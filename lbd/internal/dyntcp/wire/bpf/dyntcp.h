/* SPDX-License-Identifier: Dual BSD/GPL */
/*
 * The TCP option of dynamic TCP and the change of destination, for programs: where fields are, in bytes (docs/wire-formats.md).
 * All numbers on the wire are in network byte order. A test of package wire holds these to its constants.
 */
#ifndef MANYCAST_DYNTCP_H
#define MANYCAST_DYNTCP_H

#define DYNTCP_OPTION_KIND 254
#define DYNTCP_EXID 0x4d44
#define DYNTCP_OPTION_OFF_EXID 2
#define DYNTCP_OPTION_OFF_TAG 4
#define DYNTCP_OPTION_OFF_COOKIE 6
#define DYNTCP_OPTION_OFF_ADDRESS 14
#define DYNTCP_OPTION_OFF_PORT 18
#define DYNTCP_OPTION_SIZE 14
#define DYNTCP_OPTION_DESTINATION_SIZE 20
#define DYNTCP_OPTIONS_MAX 40
#define DYNTCP_COOKIE_SIZE 8

#define DYNTCP_PORT 8466
#define DYNTCP_CHANGE_MAGIC 0x4d434344
#define DYNTCP_CHANGE_VERSION 1
#define DYNTCP_CHANGE_OFF_MAGIC 0
#define DYNTCP_CHANGE_OFF_VERSION 4
#define DYNTCP_CHANGE_OFF_RESERVED 5
#define DYNTCP_CHANGE_OFF_TAG 6
#define DYNTCP_CHANGE_OFF_COOKIE 8
#define DYNTCP_CHANGE_OFF_USER_PORT 16
#define DYNTCP_CHANGE_OFF_VIP_PORT 18
#define DYNTCP_CHANGE_OFF_OLD_PORT 20
#define DYNTCP_CHANGE_OFF_NEW_PORT 22
#define DYNTCP_CHANGE_OFF_USER 24 /* addresses are of 16 bytes, IPv4 as ::ffff:0:0/96 */
#define DYNTCP_CHANGE_OFF_VIP 40
#define DYNTCP_CHANGE_OFF_OLD 56
#define DYNTCP_CHANGE_OFF_NEW 72
#define DYNTCP_CHANGE_OFF_SEQUENCE 88
#define DYNTCP_CHANGE_OFF_TIME 96
#define DYNTCP_CHANGE_OFF_KEY_ID 104
#define DYNTCP_CHANGE_OFF_SIGNATURE 108
#define DYNTCP_CHANGE_SIZE 172

#endif
