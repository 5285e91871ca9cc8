//! What expressions mean, and the promised answers where clocks change.

use scheduler::{Cron, FireTime, Schedule, Zone};

fn ms(text: &str) -> u64 {
    FireTime::parse(text).unwrap().0
}

/// The next firings, as RFC 3339 without milliseconds.
fn firings(cron: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let cron: Cron = cron.parse().unwrap();
    let zone = Zone::named(zone).unwrap();
    let mut at = ms(after);
    let mut found = Vec::new();
    for _ in 0..count {
        at = cron.next_after_ms(at, &zone).unwrap();
        found.push(FireTime(at).to_string().replace(".000Z", "Z"));
    }
    found
}

#[test]
fn fields_names_and_nicknames() {
    let from = "2026-01-15T10:20:30Z";
    for (cron, expected) in [
        ("* * * * *", "2026-01-15T10:21:00Z"),
        ("*/5 * * * * *", "2026-01-15T10:20:35Z"),
        ("30 4 1,15 * 5", "2026-01-16T04:30:00Z"),
        ("30 4 1,15 * +5", "2026-05-01T04:30:00Z"),
        ("0 0 * jan-MAR sun", "2026-01-18T00:00:00Z"),
        ("0 12 L * *", "2026-01-31T12:00:00Z"),
        ("0 12 L 2 *", "2026-02-28T12:00:00Z"),
        ("0 12 * * 5L", "2026-01-30T12:00:00Z"),
        ("0 12 1W 2 *", "2026-02-02T12:00:00Z"),
        ("0 12 LW * *", "2026-01-30T12:00:00Z"),
        ("0 12 * * MON#2", "2026-02-09T12:00:00Z"),
        ("0 12 29 2 *", "2028-02-29T12:00:00Z"),
        ("0 0 * * 7", "2026-01-18T00:00:00Z"),
        ("@hourly", "2026-01-15T11:00:00Z"),
        ("@daily", "2026-01-16T00:00:00Z"),
        ("@Midnight", "2026-01-16T00:00:00Z"),
        ("@weekly", "2026-01-18T00:00:00Z"),
        ("@monthly", "2026-02-01T00:00:00Z"),
        ("@yearly", "2027-01-01T00:00:00Z"),
        ("59 59 23 31 12 *", "2026-12-31T23:59:59Z"),
    ] {
        assert_eq!(firings(cron, "UTC", from, 1), [expected], "{cron}");
    }
}

#[test]
fn what_is_no_expression_or_never_fires_is_refused() {
    for bad in [
        "",
        "*",
        "* * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "0 0 30 2 *",
        "x * * * *",
        "* * * * * * 2027",
        "@reboot",
        "5-1 * * * *",
        "*/0 * * * *",
        "0 0 * * MON#6",
        "0 0 0W * *",
        ", * * * *",
        "* , * * *",
        ", * * * * *",
        "0 0 , * *",
        "0 0 * * ,",
        "1,,2 * * * *",
        "1, * * * *",
    ] {
        assert!(bad.parse::<Cron>().is_err(), "{bad}");
    }
}

#[test]
fn a_fixed_time_in_the_gap_fires_once_right_after_it() {
    // Berlin, 2026-03-29: 02:00 to 03:00, at 01:00 UTC.
    let berlin = "Europe/Berlin";
    let from = "2026-03-28T12:00:00Z";
    let after_gap = ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
    assert_eq!(firings("30 2 * * *", berlin, from, 2), after_gap);
    let expected = ["2026-03-29T01:00:00Z", "2026-03-30T00:10:00Z"];
    assert_eq!(firings("10,30,50 2 * * *", berlin, from, 2), expected);
    // The list goes on behind the gap, and 03:00 itself is not fired again.
    let expected = ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"];
    assert_eq!(firings("0 2,3 * * *", berlin, from, 2), expected);
    let expected = ["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"];
    assert_eq!(firings("30 2,3 * * *", berlin, from, 2), expected);
    // Every second of 02:30 is one firing too.
    let expected = ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
    assert_eq!(firings("* 30 2 * * *", berlin, from, 2), expected);
}

#[test]
fn a_fixed_time_in_the_overlap_fires_the_first_time() {
    // Berlin, 2026-10-25: 03:00 back to 02:00, at 01:00 UTC.
    let from = "2026-10-24T12:00:00Z";
    let expected = ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
    assert_eq!(firings("30 2 * * *", "Europe/Berlin", from, 2), expected);
    let expected = ["2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z"];
    assert_eq!(firings("0 2,3 * * *", "Europe/Berlin", from, 2), expected);
    // Asked in the middle of the second pass, nothing of it is left.
    let from = "2026-10-25T01:10:00Z";
    let expected = ["2026-10-26T01:30:00Z"];
    assert_eq!(firings("30 2 * * *", "Europe/Berlin", from, 1), expected);
}

#[test]
fn an_interval_follows_elapsed_time() {
    let from = "2026-03-29T00:10:00Z";
    let expected = [
        "2026-03-29T00:30:00Z",
        "2026-03-29T01:00:00Z",
        "2026-03-29T01:30:00Z",
    ];
    assert_eq!(firings("*/30 * * * *", "Europe/Berlin", from, 3), expected);
    assert_eq!(
        firings("* 2 * * *", "Europe/Berlin", from, 1),
        ["2026-03-30T00:00:00Z"]
    );
    let from = "2026-10-24T23:40:00Z";
    let expected = [
        "2026-10-25T00:00:00Z",
        "2026-10-25T00:30:00Z",
        "2026-10-25T01:00:00Z",
    ];
    assert_eq!(firings("*/30 * * * *", "Europe/Berlin", from, 3), expected);
    let expected = [
        "2026-10-25T00:15:00Z",
        "2026-10-25T01:15:00Z",
        "2026-10-25T02:15:00Z",
    ];
    assert_eq!(firings("15 * * * *", "Europe/Berlin", from, 3), expected);
}

#[test]
fn midnight_gaps_and_half_hours() {
    // Cairo, 2026-04-24: 00:00 to 01:00.
    let expected = ["2026-04-23T22:00:00Z", "2026-04-24T21:00:00Z"];
    assert_eq!(
        firings("@daily", "Africa/Cairo", "2026-04-23T12:00:00Z", 2),
        expected
    );
    // Lord Howe, 2026-10-04: 02:00 to 02:30, at 15:30 UTC of the day before.
    let expected = ["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"];
    assert_eq!(
        firings(
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T00:00:00Z",
            2
        ),
        expected
    );
}

#[test]
fn every_is_anchored_to_the_epoch_and_single_shots_fire_once() {
    let every = Schedule::every(std::time::Duration::from_millis(250)).unwrap();
    assert_eq!(every.next_after_ms(1_000, 7), Some(1_250));
    assert_eq!(every.next_after_ms(1_249, 7), Some(1_250));
    assert_eq!(every.next_after_ms(u64::MAX - 3, 7), None);
    assert!(Schedule::every(std::time::Duration::from_micros(1_500)).is_err());
    assert!(Schedule::every(std::time::Duration::ZERO).is_err());
    let at = Schedule::at_ms(500);
    assert_eq!(at.next_after_ms(499, 7), Some(500));
    assert_eq!(at.next_after_ms(500, 7), None);
    let after = Schedule::after(std::time::Duration::from_millis(40));
    assert_eq!(after.next_after_ms(0, 1_000), Some(1_040));
    assert_eq!(after.next_after_ms(1_040, 1_000), None);
}

#[test]
fn times_read_and_print_as_rfc_3339() {
    let time = FireTime::parse("2026-12-01T04:00:00.0019+01:00").unwrap();
    assert_eq!(time.to_string(), "2026-12-01T03:00:00.001Z");
    assert!(FireTime::parse("tomorrow").is_err());
    assert!(FireTime::parse("1969-12-31T23:59:59Z").is_err());
}
