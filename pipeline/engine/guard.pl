# The jail's guard: runs a job's command, and ends it when it tries to use the network or fills the disk.
#
# It runs in the job's own sandbox, as the job's user, because that is the one place that every engine has,
# a docker engine on another machine included; and in Perl, because that is what every image has. The
# sandbox itself is what refuses; this only sees to it that the refusal has a name and ends the job.
#
# A seccomp filter (seccomp_unotify(2)), which no process of the job can take off again, tells it of every
# connect, sendto, sendmsg and sendmmsg, and refuses what no build needs. Nothing else is slowed down. Where
# folders are to be listed in another order, it is told of every getdents as well, and answers in the place of
# the kernel: so no program can tell, and a file that is opened, read or made costs nothing more.
#
# Arguments: the host's name, the most bytes that the workspace may have, the least bytes that must stay
# free on its disk, the workspace, "reversed" or "" for the order of folders, and the command. It ends with the command's status, or with 1 after a
# last line on standard output: MARK, the reason, and its details, parted by tabs (see guard.py).
use strict;
use warnings;

my ($hostname, $quota, $reserve, $workspace, $order, @command) = @ARGV;
my $MARK = "\x1exen-aur-pipeline";

# Numbers of x86_64: arch/x86/entry/syscalls/syscall_64.tbl of Linux; the second table is that of i386.
my %nr = (
  connect => 42, sendto => 44, sendmsg => 46, clone => 56, statfs => 137, prctl => 157, bpf => 321,
  unshare => 272, setns => 308, sendmmsg => 307, seccomp => 317, userfaultfd => 323, clone3 => 435,
  perf_event_open => 298, add_key => 248, request_key => 249, keyctl => 250,
  io_uring_setup => 425, io_uring_enter => 426, io_uring_register => 427, ioctl => 16, close => 3, lseek => 8, exit_group => 231,
  getdents => 78, getdents64 => 217, process_vm_writev => 311, pidfd_open => 434, pidfd_getfd => 438,
);
my @i386 = (102, 345, 362, 369, 370, 425, 286, 287, 288, 346, 310, 435);  # socketcall, connect, keys, ...
my ($ENOSYS, $EPERM, $ENETUNREACH) = (38, 1, 101);

sub refuse { return [0x06, 0, 0, 0x00050000 | $_[0]] }   # BPF_RET, SECCOMP_RET_ERRNO
sub when { my ($value, $then) = @_; return ([0x15, 0, 1, $value], $then) }  # BPF_JEQ

sub program {
  my ($allow, $notify) = ([0x06, 0, 0, 0x7fff0000], [0x06, 0, 0, 0x7fc00000]);
  my @old = ([0x20, 0, 0, 0], (map { when($_, refuse($ENOSYS)) } @i386), $allow);
  my @new = ([0x20, 0, 0, 0], [0x35, 0, 1, 0x40000000], refuse($ENOSYS));  # x32 has numbers from there on
  push @new, map { when($nr{$_}, $notify) } qw(connect sendto sendmsg sendmmsg);
  push @new, map { when($nr{$_}, $notify) } qw(getdents getdents64) if $order eq "reversed";
  # io_uring would go round the filter; clone3 keeps its flags where no filter can look, and libc then
  # takes clone.
  push @new, map { when($nr{$_}, refuse($ENOSYS)) } qw(io_uring_setup io_uring_enter io_uring_register clone3);
  push @new, map { when($nr{$_}, refuse($EPERM)) }
    qw(setns bpf userfaultfd perf_event_open add_key request_key keyctl);
  # CLONE_NEWUSER: in a user namespace of its own a job would have capabilities again.
  push @new, ([0x15, 1, 0, $nr{unshare}], [0x15, 0, 3, $nr{clone}], [0x20, 0, 0, 16],
    [0x45, 0, 1, 0x10000000], refuse($EPERM)), $allow;
  # AUDIT_ARCH_X86_64, then AUDIT_ARCH_I386; no other can run here.
  my @jump = ([0x20, 0, 0, 4], [0x15, scalar(@old) + 2, 0, 0xc000003e], [0x15, 1, 0, 0x40000003],
    refuse($ENOSYS));
  return map { pack("SCCL", @$_) } @jump, @old, @new;
}

my $child;

sub fail { say_last("guard", $_[0]) }

# Ends the job before it can go on or say more, tells why, and ends.
sub say_last {
  kill("KILL", -$child) if $child;
  syswrite(STDOUT, "\n" . join("\t", $MARK, map { s/[\x00-\x1f\x7f]/?/gr } @_) . "\n");
  exit 1;
}

# Puts this process, which is to become the job, under the filter; returns the descriptor that tells of it.
sub filter {
  setpgrp;
  syscall($nr{prctl}, 38, 1, 0, 0, 0) == 0 or return -1;  # PR_SET_NO_NEW_PRIVS
  my @program = program();
  my $code = join("", @program);
  my $fprog = pack("Sx6P", scalar(@program), $code);
  # SECCOMP_SET_MODE_FILTER with SPEC_ALLOW (the filter is no reason to slow the job down) and NEW_LISTENER;
  # with WAIT_KILLABLE_RECV, no signal takes a process out of a call that the guard is answering.
  return syscall($nr{seccomp}, 1, 4 | 8 | ($order eq "reversed" ? 32 : 0), $fprog);
}

# Says that the sandbox is there, and that all from now on is the job's doing.
sub begin { syswrite(STDOUT, "$MARK\tbegun\n") }

# Starts the job; returns what tells of its calls. The guard is not under the filter, as it could not answer
# itself: the two share their descriptors (CLONE_FILES) until the job's program starts, and so the new one.
sub start {
  # The guard itself must not be traced or read by the job, whose user it is: PR_SET_DUMPABLE.
  syscall($nr{prctl}, 4, 0, 0, 0, 0);
  pipe(my $told, my $tell) or fail("pipe: $!");
  $child = syscall($nr{clone}, 0x400 | 17, 0, 0, 0, 0);  # 17: SIGCHLD
  fail("clone: $!") if $child < 0;
  if ($child == 0) {
    my $fd = filter();
    syswrite($tell, $fd < 0 ? "$!\n" : "fd $fd\n");
    syscall($nr{prctl}, 4, 1, 0, 0, 0);
    no warnings "exec";
    exec { $command[0] } @command if $fd >= 0;
    print STDERR "$command[0]: $!\n" if $fd >= 0;
    syscall($nr{exit_group}, 127);  # Perl's own end would close the guard's files
  }
  my $said = readline($told) // "";
  chomp $said;
  $said =~ /^fd (\d+)$/ or fail("seccomp: $said");
  open(my $listener, "+<&=", $1) or fail("listener: $!");
  return $listener;
}

sub memory {
  my ($pid, $at, $count) = @_;
  return "" if $count <= 0 || !$at;
  open(my $file, "<:raw", "/proc/$pid/mem") or return "";
  sysseek($file, $at, 0) or return "";
  sysread($file, my $data, $count) or return "";
  return $data;
}

# An address of socket(7) as text and port, and whether it is beyond this machine; nothing for others.
sub address {
  my ($data) = @_;
  return if length($data) < 8;
  my $family = unpack("S", $data);
  if ($family == 2) {
    my ($port, @ip) = unpack("x2nC4", $data);
    return (join(".", @ip), $port, $ip[0] != 127 && "@ip" ne "0 0 0 0");
  }
  if ($family == 10 && length($data) >= 24) {
    my ($port, @ip) = unpack("x2nx4n8", $data);
    my @v4 = ($ip[6] >> 8, $ip[6] & 255, $ip[7] >> 8, $ip[7] & 255);
    if (!grep { $_ } @ip[0 .. 4]) {
      return (join(".", @v4), $port, $v4[0] != 127 && "@v4" ne "0 0 0 0") if $ip[5] == 0xffff;
      return ("::1", $port, 0) if "@ip[5..7]" eq "0 0 1";
      return ("::1", $port, 0) if "@ip[5..7]" eq "0 0 0";
    }
    return ("[" . join(":", map { sprintf("%x", $_) } @ip) . "]", $port, 1);
  }
  return;
}

# The name that a DNS query (RFC 1035, 4.1) asks for.
sub asked {
  my ($data) = @_;
  return if length($data) < 17 || unpack("x4n", $data) != 1 || (unpack("x2n", $data) & 0xf800);
  my ($at, @labels) = (12);
  while ($at < length($data) && (my $length = ord(substr($data, $at, 1)))) {
    return if $length > 63 || @labels > 127;
    push @labels, substr($data, $at + 1, $length);
    $at += $length + 1;
  }
  return join(".", @labels);
}

sub is_own { return $_[0] =~ /^(\Q$hostname\E|localhost)(\.|$)|(^|\.)127\.in-addr\.arpa$/i }

sub content {
  open(my $file, "<:raw", $_[0]) or return "?";
  local $/;
  return scalar(<$file>) // "?";
}

sub process {
  my ($pid) = @_;
  my ($comm, $line) = (content("/proc/$pid/comm"), content("/proc/$pid/cmdline"));
  chomp $comm;
  $line =~ s/\0+$//;
  return ($comm, substr($line =~ s/\0/ /gr, 0, 300));
}

my %asking;  # "PID:FD" of a socket that was connected to a name server, and whose; until it asks

sub network { say_last("network", process($_[0]), $_[1]) }

# What a call is about: tells of an attempt and does not return. Returns whether the call is to be taken for
# done: a resolver that could not reach its name server would never say which name it wants.
sub judge {
  my ($pid, $call, @args) = @_;
  my $socket = "$pid:$args[0]";
  if ($call == $nr{connect}) {
    my ($ip, $port, $outside) = address(memory($pid, $args[1], $args[2] > 28 ? 28 : $args[2]));
    return 0 if !defined $port;
    if ($port == 53) { $asking{$socket} = [time, process($pid), "$ip port $port"]; return $outside }
    return 0 if !$outside;
    network($pid, "$ip port $port");
  }
  my @messages = ([@args[4, 5], @args[1, 2]]);
  if ($call != $nr{sendto}) {
    my $count = $call == $nr{sendmsg} ? 1 : $args[2] > 4 ? 4 : $args[2];
    @messages = map {
      my ($name, $length, $iov) = unpack("QLx4Q", memory($pid, $args[1] + 64 * $_, 24));
      my ($base, $size) = unpack("QQ", memory($pid, $iov // 0, 16));
      [$name // 0, $length // 0, $base // 0, $size // 0]
    } 0 .. $count - 1;
  }
  for my $message (@messages) {
    my ($name, $length, $base, $size) = @$message;
    my ($ip, $port, $outside) = address(memory($pid, $name, $length > 28 ? 28 : $length));
    if (delete $asking{$socket} || (defined $port && $port == 53)) {
      my $wanted = asked(memory($pid, $base, $size > 300 ? 300 : $size));
      next if defined $wanted && is_own($wanted);
      network($pid, defined $wanted ? "the name $wanted" : "a name server");
    }
    network($pid, "$ip port $port") if $outside;
  }
  return 0;
}

# A descriptor of the guard's own for what is open in a process: both share the place in it.
sub shared {
  my ($pid, $number) = @_;
  my $process = syscall($nr{pidfd_open}, $pid, 0);
  if ($process < 0) {  # a thread, whose files are those of its process
    return -1 if content("/proc/$pid/status") !~ /^Tgid:\s+(\d+)/m || $1 == $pid;
    $process = syscall($nr{pidfd_open}, $1 + 0, 0);
    return -1 if $process < 0;
  }
  my $folder = syscall($nr{pidfd_getfd}, $process, $number, 0);
  syscall($nr{close}, $process);
  return $folder;
}

# Entries of getdents(2) in reversed order; where each says that the next one is goes by its place, not by
# its name, so that the last one still says where the listing goes on.
sub reversed {
  my ($entries) = @_;
  my ($at, @entries, @next) = (0);
  while ($at < length($entries)) {
    my ($next, $length) = unpack("x8qS", substr($entries, $at, 18));
    push @next, $next;
    unshift @entries, substr($entries, $at, $length);
    $at += $length;
  }
  substr($entries[$_], 8, 8) = pack("q", $next[$_]) for 0 .. $#entries;
  return join("", @entries);
}

# Lists a folder in the place of a process. Returns what the call returns to it, and nothing where the process
# has to list for itself.
sub list {
  my ($pid, $call, $number, $buffer, $size) = @_;
  my $folder = shared($pid, $number & 0xffffffff);
  return if $folder < 0;
  my $place = syscall($nr{lseek}, $folder, 0, 1);
  $size = 1 << 16 if $size > 1 << 16;
  my $entries = "\0" x $size;
  my $got = syscall($call, $folder, $entries, $size + 0);
  $got = -($! + 0) if $got < 0;
  if ($got > 0) {
    my $local = pack("PQ", my $other = reversed(substr($entries, 0, $got)), $got);
    my $written = syscall($nr{process_vm_writev}, $pid, $local, 1, pack("QQ", $buffer, $got), 1, 0);
    if ($written != $got) {
      syscall($nr{lseek}, $folder, $place, 0);
      undef $got;
    }
  }
  syscall($nr{close}, $folder);
  return $got;
}

sub answer {
  my ($listener) = @_;
  my $request = "\0" x 80;  # struct seccomp_notif
  return if syscall($nr{ioctl}, fileno($listener), 0xc0502100, $request) < 0;  # the process is gone
  my ($id, $pid, $call, @args) = unpack("QLx4lx4x8Q6", $request);
  my $reply = sub { syscall($nr{ioctl}, fileno($listener), 0xc0182101, pack("QqlL", $id, @_)) };
  if ($call == $nr{getdents} || $call == $nr{getdents64}) {
    my $got = list($pid, $call, @args);
    return defined $got ? $reply->($got < 0 ? (0, $got, 0) : ($got, 0, 0)) : $reply->(0, 0, 1);
  }
  # SECCOMP_USER_NOTIF_FLAG_CONTINUE: what looked harmless may go on, and ends at the sandbox if it was not.
  $reply->(0, 0, judge($pid, $call, @args) ? 0 : 1);
}

sub free_bytes {
  my $buffer = "\0" x 120;  # struct statfs
  return 1e18 if syscall($nr{statfs}, "$workspace", $buffer) < 0;
  my ($size, $available) = unpack("x8qx16q", $buffer);
  return $size * $available;
}

# Looking at the disk's free space costs nothing; only what may have come of it is counted.
my ($used, $free, $looked) = (0, 0, 0);

sub watch_disk {
  my $now = free_bytes();
  if ($now < $reserve && $free - $now > $reserve / 4) { say_last("disk", "full", int $now) }
  # What others free meanwhile must not hide what the job takes.
  $free = $now if $now > $free;
  return if time - $looked < 120 && ($free - $now) < ($quota - $used) / 2;
  return if time - $looked < 2 && $free - $now < $quota - $used;
  count_files();
  ($free, $looked) = ($now, time);
}

sub count_files {
  my $said = `du -skx "$workspace" 2> /dev/null`;
  $used = $said =~ /^(\d+)/ ? $1 * 1024 : 0;
  say_last("disk", "quota", $used) if $used > $quota;
}

$SIG{PIPE} = "DEFAULT";
begin();
my $listener = start();
$free = free_bytes();
$looked = time;
$SIG{CHLD} = sub { };  # so that it ends the wait below
while (1) {
  my $done = waitpid($child, 1);
  if ($done == $child) {
    my $status = $?;
    say_last("network", @$_[1 .. 3]) for values %asking;
    # Whatever it failed of, a full disk is the likelier reason.
    say_last("disk", "none", 0) if $status && free_bytes() < 1 << 20;
    # The disk's free space tells nothing of a job that takes what others give back.
    count_files() if !$status;
    exit($status & 127 ? 128 + ($status & 127) : $status >> 8);
  }
  my $ready = "";
  vec($ready, fileno($listener), 1) = 1;
  answer($listener) if select($ready, undef, undef, 0.2) > 0;
  for my $asked (values %asking) {
    say_last("network", @$asked[1 .. 3]) if time - $asked->[0] > 2;
  }
  watch_disk();
}
