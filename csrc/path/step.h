/* step.h - what a, b, c, d, len, flag and addr of struct fwd_step hold, stage by stage.
 * fwd/observe/walk.py renders these; docs/datapath.md explains them.
 *
 *   stage              flag        a             b                c             d         len   addr
 *   PARSE              -           ethertype     frame length     -             -         proto daddr
 *   SOURCE_IP          1 = known   lxc_id        identity         -             -         -     saddr
 *   LB                 1 = found   rev_nat_id    backend (v4)     backend id    ports*    proto frontend
 *   CT_*               1 = hit     ct status     sport<<16|dport  tuple flags   monitor   proto (addr: saddr of key)
 *   IPCACHE_DST        1 = hit     identity      tunnel ep (v4)   entry flags   -         plen  prefix
 *   POLICY_*           1 = entry   rule_id       match type       identity      lxc_id    proto -
 *   CT_CREATE_*        1 = written ct status     -                tuple flags   -         proto -
 *   LOCAL              1 = hit     lxc_id        lxc flags        ifindex       -         -     daddr
 *   ENCAP              1 = tunnel  VNI           remote (v4)      -             -         -     remote
 *   TO_STACK           -           old TTL       -                -             -         -     daddr
 *   TO_OVERLAY         -           VNI           -                -             -         -     -
 *   TO_NETDEV, FROM_NETDEV         frame length  VLAN id          -             -         -     -
 *   DECAP              1 = VXLAN   VNI           datagram length  -             -         -     outer source
 *   PEER               1 = known   VNI           identity         ipcache id    tunnel ep -     outer source
 *   ENDPOINT           1 = local   lxc_id        lxc flags        ifindex       identity  -     daddr
 *   L3                 -           old TTL       lxc_id           -             -         -     -
 *   REV_NAT            1 = known   rev_nat_id    frontend (v4)    -             ports*    -     frontend
 *   SNAT, REV_SNAT     1 = mapped  address (v4)  port, echo id    address before ports**   proto address
 *   MTU                -           IP length     tunnel MTU       -             -         -     -
 *   MSS                1 = lowered MSS before    MSS after        -             -         -     -
 *   ICMP_ERROR         1 = sent    type          code             MTU, 0 = none drop      proto its source (TCP: a reset)
 *   DELIVER            -           lxc_id        ifindex          identity      -         -     -
 *
 * ports**: of the packet before translation, source << 16 | destination, host order.
 * ports*: frontend port << 16 | backend port.
 * v4 addresses in a..d are be32 as they lie; ports in b are host order; proto is the IP protocol.
 */
#ifndef FWD_PATH_STEP_H
#define FWD_PATH_STEP_H
#endif
