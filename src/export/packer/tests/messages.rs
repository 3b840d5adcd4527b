//! Messages: their sequence numbers, their time to leave, their size, and the templates in them.

use super::*;

/// This holds even when the message in hand is full, or when the templates are due.
#[test]
fn a_template_comes_before_the_first_record_that_needs_it_and_is_repeated() {
    for version in TEMPLATED {
        let mut script = Script::new(&config::Collector {
            template_refresh_packets: 3,
            ..collector(version)
        });
        let counts: Vec<_> = [
            started(),
            started(),
            ended(snat()),
            ended(nat66()),
            started(),
        ]
        .iter()
        .map(|event| script.send(event, 0))
        .collect();
        let announced: Vec<_> = (0..counts.len())
            .map(|last| decode(&counts[..=last].concat()).templates)
            .collect();
        // One in the third message; all of them, and the fourth, in the fourth.
        assert_eq!(announced, [6, 6, 7, 15, 15]);
    }
}

#[test]
fn netflow_5_sequence_numbers_count_flows() {
    let mut script = Script::new(&collector(Version::NetflowV5));
    let mut messages = script.send(&create(hairpin(), START), 0);
    messages.extend(script.send(&started(), 0));
    messages.extend(script.send(&started(), 0));
    let sequences: Vec<_> = messages.iter().map(|message| sequence(message)).collect();
    assert_eq!(sequences, [0, 2, 3]);
}

#[test]
fn netflow_9_sequence_numbers_count_messages() {
    let mut script = Script::new(&collector(Version::NetflowV9));
    for expected in 0..3 {
        script.push(&started(), 0);
        script.push(&ended(snat()), 0);
        let messages = script.flush(0);
        assert_eq!(sequence(&messages[0]), expected);
    }
}

#[test]
fn ipfix_sequence_numbers_count_data_records_with_those_of_options() {
    let mut script = Script::new(&collector(Version::Ipfix));
    script.push(&started(), 0);
    script.push(&ended(snat()), 0);
    assert_eq!(sequence(&script.flush(0)[0]), 0);
    assert_eq!(sequence(&script.send(&started(), 0)[0]), 3);
    assert_eq!(sequence(&script.send(&started(), 0)[0]), 4);
}

#[test]
fn templates_are_repeated_after_the_configured_number_of_messages() {
    for version in TEMPLATED {
        let mut script = Script::new(&config::Collector {
            template_refresh_packets: 3,
            ..collector(version)
        });
        let messages: Vec<_> = (0..7).flat_map(|_| script.send(&started(), 0)).collect();
        let long: Vec<_> = messages.iter().map(|message| message.len() > 100).collect();
        assert_eq!(long, [true, false, false, true, false, false, true]);
        assert_eq!(decode(&messages).templates, 18);
    }
}

#[test]
fn templates_are_repeated_after_the_configured_time() {
    for version in TEMPLATED {
        let mut script = Script::new(&collector(version));
        assert_eq!(script.packer.poll_timeout(), None);
        script.send(&started(), 0);
        assert_eq!(script.packer.poll_timeout(), Some(at(1_800_000).up));
        assert!(script.timeout(1_799_999).is_empty());
        // With nothing else to send, the templates leave on their own.
        let decoded = decode(&script.timeout(1_800_000));
        assert_eq!((decoded.templates, decoded.flows.len()), (6, 0));
        assert_eq!(script.packer.poll_timeout(), Some(at(3_600_000).up));
        // Otherwise they precede the next record.
        let decoded = decode(&script.send(&started(), 3_600_000));
        assert_eq!((decoded.templates, decoded.flows.len()), (6, 1));
    }
}

#[test]
fn a_message_leaves_when_its_first_record_has_waited_long_enough() {
    for version in ALL {
        let mut script = Script::new(&collector(version));
        script.push(&started(), 100);
        script.push(&started(), 900);
        assert_eq!(script.packer.poll_timeout(), Some(at(1100).up));
        assert!(script.timeout(1099).is_empty());
        let messages = script.timeout(1100);
        assert_eq!(decode(&messages).flows.len(), 2);
        assert!(script.packer.is_idle());
        assert!(script.timeout(1100).is_empty());
    }
}

#[test]
fn a_record_that_just_fits_is_packed_and_one_octet_less_begins_another_message() {
    for version in ALL {
        for event in [started(), ended(snat()), ended(nat66())] {
            if version == Version::NetflowV5 && !event.session.is_ipv4() {
                continue;
            }
            let messages = |mtu| {
                let mut script = Script::new(&config::Collector {
                    mtu,
                    ..collector(version)
                });
                (0..5).for_each(|_| script.push(&event, 0));
                script.flush(0)
            };
            let whole = messages(9000);
            assert_eq!(whole.len(), 1);
            let exact = whole[0].len() as u16 + 28;
            assert_eq!(messages(exact), whole);
            let split = messages(exact - 1);
            assert_eq!(split.len(), 2);
            assert_eq!(decode(&split[..1]).flows.len(), 4);
        }
    }
}

#[test]
fn netflow_5_messages_hold_30_records_at_most() {
    let mut script = Script::new(&config::Collector {
        mtu: 9000,
        ..collector(Version::NetflowV5)
    });
    (0..31).for_each(|_| script.push(&started(), 0));
    let messages = script.flush(0);
    assert_eq!(messages[0].len(), 24 + 30 * 48);
    assert_eq!(messages[1].len(), 24 + 48);
    assert_eq!(sequence(&messages[1]), 30);
}

#[test]
fn templates_that_do_not_fit_one_message_take_several() {
    for (version, address, mtu) in [
        (Version::NetflowV9, "192.0.2.1:2055", 576),
        (Version::Ipfix, "192.0.2.1:2055", 576),
        (Version::NetflowV9, "192.0.2.1:2055", 300),
        (Version::Ipfix, "[2001:db8::1]:4739", 300),
    ] {
        let config = config::Collector {
            name: None,
            address: address.parse().unwrap(),
            mtu,
            triplet: true,
            ingress_vrf: true,
            template_refresh_packets: 1,
            ..collector(version)
        };
        let mut script = Script::new(&config);
        // From here on all templates are in use.
        script.send(&ended(nat66()), 0);
        script.send(&ended(snat()), 0);
        let before = script.packer.template_sends();
        for _ in 0..10 {
            script.push(&ended(nat66()), 0);
            script.push(&ended(snat()), 0);
        }
        let messages = script.flush(0);
        assert!(
            messages
                .iter()
                .all(|message| message.len() <= config.max_message())
        );
        let decoded = decode(&messages);
        assert_eq!(decoded.flows.len(), 80);
        assert_eq!(
            decoded.templates as u64,
            9 * (script.packer.template_sends() - before)
        );
    }
}

#[test]
fn the_statistics_count_what_was_packed_before_and_what_was_lost() {
    let mut script = Script::new(&config::Collector {
        template_refresh_packets: 2,
        ..collector(Version::Ipfix)
    });
    let mut messages = script.send(&started(), 0);
    script.push(&started(), 0);
    messages.extend(script.send(&started(), 0));
    script.packer.count_lost(5);
    let octets: usize = messages.iter().map(Vec::len).sum();
    assert_eq!(
        decode(&script.send(&started(), 0)).options,
        [format!("168496141 +0 {octets} 2 3 5")]
    );
}
