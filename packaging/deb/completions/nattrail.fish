# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_nattrail_global_optspecs
    string join \n c/config= instance= h/help V/version
end

function __fish_nattrail_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_nattrail_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_nattrail_using_subcommand
    set -l cmd (__fish_nattrail_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c nattrail -n "__fish_nattrail_needs_command" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_needs_command" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_needs_command" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_needs_command" -s V -l version -d 'Print version'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "run" -d 'Log translations until a signal ends it (SIGHUP: read the configuration again, SIGUSR1: log statistics)'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "start" -d 'Start the service, by systemctl where systemd runs, else by the init script, and wait until it is ready'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "stop" -d 'Stop the service, and wait until it has ended'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "restart" -d 'Stop the service if it runs, and start it'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "reload" -d 'Let the running service read its configuration again and reopen its files'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "install" -d 'Start the service now and whenever the machine starts'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "check" -d 'Check configuration, permissions, kernel settings, collectors, syslog targets, and a running daemon'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "archive" -d 'Keep finished connections for years'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "monitor" -d 'Set up ports to which switches mirror traffic, and take them down'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "pending" -d 'List the connections that were open at the daemon\'s last flush'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "status" -d 'Show the counters of the running daemon'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "convert" -d 'Write the configuration of another program as nattrail\'s, and name the settings without an equivalent; or leases of a DHCP server as a list of subscribers'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "tail" -d 'Show events as they happen, from the running daemon'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "who" -d 'Find out who was behind a public address and port at some time'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "report" -d 'Show the sums of a day: sessions, subscribers, ports in use, gaps, and the state of the archive'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "verify" -d 'Check an archive against its evidence log, or a proof of one session, without the daemon'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "version" -d 'Print the version'
complete -c nattrail -n "__fish_nattrail_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nattrail -n "__fish_nattrail_using_subcommand run" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand run" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand run" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand start" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand start" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand start" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand stop" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand stop" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand stop" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand restart" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand restart" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand restart" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand reload" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand reload" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand reload" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand install" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand install" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand install" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand check" -l color -d 'Use colours: auto is on a terminal, unless NO_COLOR is set or TERM is dumb' -r -f -a "auto\t''
always\t''
never\t''"
complete -c nattrail -n "__fish_nattrail_using_subcommand check" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand check" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand check" -l strict -d 'Fail on warnings too'
complete -c nattrail -n "__fish_nattrail_using_subcommand check" -l json -d 'Print an array of JSON objects'
complete -c nattrail -n "__fish_nattrail_using_subcommand check" -l config-only -d 'Check the configuration only'
complete -c nattrail -n "__fish_nattrail_using_subcommand check" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and not __fish_seen_subcommand_from run key hold holds release purge timestamp forget help" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and not __fish_seen_subcommand_from run key hold holds release purge timestamp forget help" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and not __fish_seen_subcommand_from run key hold holds release purge timestamp forget help" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and not __fish_seen_subcommand_from run key hold holds release purge timestamp forget help" -f -a "run" -d 'Follow the daemon\'s record log and keep finished connections, until a signal ends it'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and not __fish_seen_subcommand_from run key hold holds release purge timestamp forget help" -f -a "key" -d 'Print the first public key of each gateway\'s evidence log, to publish it: with it, others can check proofs'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and not __fish_seen_subcommand_from run key hold holds release purge timestamp forget help" -f -a "hold" -d 'Keep the sessions that a pending order needs, whatever archive.keep says, until they are released'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and not __fish_seen_subcommand_from run key hold holds release purge timestamp forget help" -f -a "holds" -d 'List the holds that last'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and not __fish_seen_subcommand_from run key hold holds release purge timestamp forget help" -f -a "release" -d 'End the holds of a case'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and not __fish_seen_subcommand_from run key hold holds release purge timestamp forget help" -f -a "purge" -d 'Delete the sessions whose time is over now, rather than in the archive\'s daily run'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and not __fish_seen_subcommand_from run key hold holds release purge timestamp forget help" -f -a "timestamp" -d 'Have an authority sign the time of the newest checkpoint, by the program of archive.timestamp'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and not __fish_seen_subcommand_from run key hold holds release purge timestamp forget help" -f -a "forget" -d 'Tell the daemon that there is no archive any more: its log keeps no records for one'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and not __fish_seen_subcommand_from run key hold holds release purge timestamp forget help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from run" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from run" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from run" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from key" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from key" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from key" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from hold" -l subscriber -d 'The sessions of this subscriber or network' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from hold" -l server -d 'The sessions with this server' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from hold" -l at -d 'The time' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from hold" -l from -d 'The beginning of an interval' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from hold" -l until -d 'The end of the interval' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from hold" -l skew -d 'Look this much before and after the time as well, since clocks differ' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from hold" -l proto -d 'Only this protocol, by name or number' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from hold" -l to -d 'Only sessions with this other side, which the public address reached or was reached by' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from hold" -l case -d 'The case for which the sessions are kept' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from hold" -l reason -d 'The reason' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from hold" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from hold" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from hold" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from holds" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from holds" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from holds" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from release" -l case -d 'The case whose holds end' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from release" -l reason -d 'The reason' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from release" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from release" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from release" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from purge" -l keep -d 'Delete sessions that ended so long ago, this once [default: archive.keep]' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from purge" -l reason -d 'The reason' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from purge" -l case -d 'The case' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from purge" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from purge" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from purge" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from timestamp" -l timeout -d 'End the program of archive.timestamp after this time' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from timestamp" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from timestamp" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from timestamp" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from forget" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from forget" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from forget" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from help" -f -a "run" -d 'Follow the daemon\'s record log and keep finished connections, until a signal ends it'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from help" -f -a "key" -d 'Print the first public key of each gateway\'s evidence log, to publish it: with it, others can check proofs'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from help" -f -a "hold" -d 'Keep the sessions that a pending order needs, whatever archive.keep says, until they are released'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from help" -f -a "holds" -d 'List the holds that last'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from help" -f -a "release" -d 'End the holds of a case'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from help" -f -a "purge" -d 'Delete the sessions whose time is over now, rather than in the archive\'s daily run'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from help" -f -a "timestamp" -d 'Have an authority sign the time of the newest checkpoint, by the program of archive.timestamp'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from help" -f -a "forget" -d 'Tell the daemon that there is no archive any more: its log keeps no records for one'
complete -c nattrail -n "__fish_nattrail_using_subcommand archive; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and not __fish_seen_subcommand_from up down help" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and not __fish_seen_subcommand_from up down help" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and not __fish_seen_subcommand_from up down help" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and not __fish_seen_subcommand_from up down help" -f -a "up" -d 'Make connection tracking see the frames that arrive at monitor ports'
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and not __fish_seen_subcommand_from up down help" -f -a "down" -d 'Take monitor ports down, so that everything is as before'
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and not __fish_seen_subcommand_from up down help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and __fish_seen_subcommand_from up" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and __fish_seen_subcommand_from up" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and __fish_seen_subcommand_from up" -l dry-run -d 'Print the commands instead of running them'
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and __fish_seen_subcommand_from up" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and __fish_seen_subcommand_from down" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and __fish_seen_subcommand_from down" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and __fish_seen_subcommand_from down" -l dry-run -d 'Print the commands instead of running them'
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and __fish_seen_subcommand_from down" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and __fish_seen_subcommand_from help" -f -a "up" -d 'Make connection tracking see the frames that arrive at monitor ports'
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and __fish_seen_subcommand_from help" -f -a "down" -d 'Take monitor ports down, so that everything is as before'
complete -c nattrail -n "__fish_nattrail_using_subcommand monitor; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nattrail -n "__fish_nattrail_using_subcommand pending" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand pending" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand pending" -l json -d 'Print one JSON object per line'
complete -c nattrail -n "__fish_nattrail_using_subcommand pending" -l csv -d 'Print comma-separated values, the first line the names of the columns'
complete -c nattrail -n "__fish_nattrail_using_subcommand pending" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand status" -l watch -d 'Print it repeatedly, every 2 seconds unless given otherwise' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand status" -l color -d 'Use colours: auto is on a terminal, unless NO_COLOR is set or TERM is dumb' -r -f -a "auto\t''
always\t''
never\t''"
complete -c nattrail -n "__fish_nattrail_using_subcommand status" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand status" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand status" -l json -d 'Print the JSON object as the daemon sends it, on one line'
complete -c nattrail -n "__fish_nattrail_using_subcommand status" -l prometheus -d 'Print what Prometheus gets, in its text format'
complete -c nattrail -n "__fish_nattrail_using_subcommand status" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand convert" -l lease-time -d 'How long the leases of dnsmasq last, as in its dhcp-range' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand convert" -s o -l output -d 'Write to this file, which must not exist, instead of the standard output' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand convert" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand convert" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand convert" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c nattrail -n "__fish_nattrail_using_subcommand tail" -l src -d 'Only sessions with this source before translation' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand tail" -l dst -d 'Only sessions with this destination before translation' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand tail" -l post -d 'Only sessions with this source or destination after translation' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand tail" -l proto -d 'Only sessions of this protocol, by name or number' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand tail" -l mark -d 'Only sessions whose mark, under the mask, is this' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand tail" -l zone -d 'Only sessions in this conntrack zone' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand tail" -l event -d 'Only these events: create, delete, or flow (of connections that are accounted in parts)' -r -f -a "create\t''
delete\t''
flow\t''"
complete -c nattrail -n "__fish_nattrail_using_subcommand tail" -s n -l count -d 'End after this many events' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand tail" -l color -d 'Use colours: auto is on a terminal, unless NO_COLOR is set or TERM is dumb' -r -f -a "auto\t''
always\t''
never\t''"
complete -c nattrail -n "__fish_nattrail_using_subcommand tail" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand tail" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand tail" -l json -d 'Print one JSON object per line, with the names of the copies\' format json'
complete -c nattrail -n "__fish_nattrail_using_subcommand tail" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l subscriber -d 'The sessions of this subscriber or network' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l server -d 'The sessions with this server' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l at -d 'The time' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l from -d 'The beginning of an interval' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l until -d 'The end of the interval' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l skew -d 'Look this much before and after the time as well, since clocks differ' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l proto -d 'Only this protocol, by name or number' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l to -d 'Only sessions with this other side, which the public address reached or was reached by' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l batch -d 'Answer each request in this file ("-": standard input)' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l archive -d 'Ask this archive too, such as a copy of another gateway\'s; may be given several times' -r -f -a "(__fish_complete_directories)"
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l html -d 'Also write the answer into this file, as one page to print or attach' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l proof -d 'Write a proof of the session into this file; the answer has to be one session that is sealed' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l case -d 'The case that the request belongs to' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l reason -d 'The reason for the request' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l subscribers -d 'Name the subscribers out of this file: CSV with address or prefix, from, until and identifier' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l color -d 'Use colours: auto is on a terminal, unless NO_COLOR is set or TERM is dumb' -r -f -a "auto\t''
always\t''
never\t''"
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l json -d 'Print JSON, one object for each request'
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -l csv -d 'Print comma-separated values, the first line the names of the columns'
complete -c nattrail -n "__fish_nattrail_using_subcommand who" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand report" -l day -d 'The day, in UTC, such as 2026-11-20 [default: yesterday]' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand report" -l archive -d 'Read this archive too, such as a copy of another gateway\'s; may be given several times' -r -f -a "(__fish_complete_directories)"
complete -c nattrail -n "__fish_nattrail_using_subcommand report" -l top -d 'List so many subscribers and public addresses, those with the most' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand report" -l html -d 'Write the report into this file, as one page with plots, instead of printing it' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand report" -l subscribers -d 'Name the subscribers out of this file: CSV with address or prefix, from, until and identifier' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand report" -l color -d 'Use colours: auto is on a terminal, unless NO_COLOR is set or TERM is dumb' -r -f -a "auto\t''
always\t''
never\t''"
complete -c nattrail -n "__fish_nattrail_using_subcommand report" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand report" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand report" -l json -d 'Print one JSON object'
complete -c nattrail -n "__fish_nattrail_using_subcommand report" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand verify" -l key -d 'The first public key, as "nattrail archive key" printed it when the log began; may be given several times' -r
complete -c nattrail -n "__fish_nattrail_using_subcommand verify" -l key-file -d 'A file of such keys, one a line' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand verify" -l witness -d 'A checkpoint that was kept elsewhere: a copy of the log\'s file "checkpoint", or a file with copies of records, of which all checkpoints count; may be given several times' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand verify" -l bundle -d 'Check this proof of one session, as "nattrail who --proof" writes it, and print the session' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand verify" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand verify" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand verify" -l json -d 'Print one JSON object'
complete -c nattrail -n "__fish_nattrail_using_subcommand verify" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand version" -s c -l config -d 'Configuration file (.toml, .yaml, .json or .ini) [env: NATTRAIL_CONFIG] [default: /etc/nattrail/nattrail.toml, if there]' -r -F
complete -c nattrail -n "__fish_nattrail_using_subcommand version" -l instance -d 'Instance nattrail@NAME, with its configuration (/etc/nattrail/NAME.toml), its database and its control socket' -r -f -a '(ls /etc/nattrail 2>/dev/null | sed -n "/^nattrail[.]/d; s/[.]toml//p")'
complete -c nattrail -n "__fish_nattrail_using_subcommand version" -s h -l help -d 'Print help'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "run" -d 'Log translations until a signal ends it (SIGHUP: read the configuration again, SIGUSR1: log statistics)'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "start" -d 'Start the service, by systemctl where systemd runs, else by the init script, and wait until it is ready'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "stop" -d 'Stop the service, and wait until it has ended'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "restart" -d 'Stop the service if it runs, and start it'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "reload" -d 'Let the running service read its configuration again and reopen its files'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "install" -d 'Start the service now and whenever the machine starts'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "check" -d 'Check configuration, permissions, kernel settings, collectors, syslog targets, and a running daemon'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "archive" -d 'Keep finished connections for years'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "monitor" -d 'Set up ports to which switches mirror traffic, and take them down'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "pending" -d 'List the connections that were open at the daemon\'s last flush'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "status" -d 'Show the counters of the running daemon'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "convert" -d 'Write the configuration of another program as nattrail\'s, and name the settings without an equivalent; or leases of a DHCP server as a list of subscribers'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "tail" -d 'Show events as they happen, from the running daemon'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "who" -d 'Find out who was behind a public address and port at some time'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "report" -d 'Show the sums of a day: sessions, subscribers, ports in use, gaps, and the state of the archive'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "verify" -d 'Check an archive against its evidence log, or a proof of one session, without the daemon'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "version" -d 'Print the version'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and not __fish_seen_subcommand_from run start stop restart reload install check archive monitor pending status convert tail who report verify version help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and __fish_seen_subcommand_from archive" -f -a "run" -d 'Follow the daemon\'s record log and keep finished connections, until a signal ends it'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and __fish_seen_subcommand_from archive" -f -a "key" -d 'Print the first public key of each gateway\'s evidence log, to publish it: with it, others can check proofs'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and __fish_seen_subcommand_from archive" -f -a "hold" -d 'Keep the sessions that a pending order needs, whatever archive.keep says, until they are released'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and __fish_seen_subcommand_from archive" -f -a "holds" -d 'List the holds that last'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and __fish_seen_subcommand_from archive" -f -a "release" -d 'End the holds of a case'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and __fish_seen_subcommand_from archive" -f -a "purge" -d 'Delete the sessions whose time is over now, rather than in the archive\'s daily run'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and __fish_seen_subcommand_from archive" -f -a "timestamp" -d 'Have an authority sign the time of the newest checkpoint, by the program of archive.timestamp'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and __fish_seen_subcommand_from archive" -f -a "forget" -d 'Tell the daemon that there is no archive any more: its log keeps no records for one'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and __fish_seen_subcommand_from monitor" -f -a "up" -d 'Make connection tracking see the frames that arrive at monitor ports'
complete -c nattrail -n "__fish_nattrail_using_subcommand help; and __fish_seen_subcommand_from monitor" -f -a "down" -d 'Take monitor ports down, so that everything is as before'
