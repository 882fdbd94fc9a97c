use proptest::prelude::*;

use super::*;

const ID_TEXT: &str = "0b5c1b0e-3c5a-4b0e-9d5e-0123456789ab";

fn id() -> Uuid {
    Uuid::parse_str(ID_TEXT).unwrap()
}

fn at(seconds: u64, nanos: u32) -> SystemTime {
    UNIX_EPOCH + Duration::new(seconds, nanos)
}

fn text(record: &EncodedRecord) -> &str {
    std::str::from_utf8(record.bytes()).unwrap()
}

fn emitted_at(moment: SystemTime) -> String {
    let record = EncodedRecord::encode(id(), "{}", moment);
    KinesisRecord::decode(record.bytes())
        .unwrap()
        .emitted_at()
        .to_owned()
}

/// All that must hold for a record of any data.
fn assert_round_trip(data: &str, moment: SystemTime) {
    let record = EncodedRecord::encode(id(), data, moment);
    assert_eq!(record.id(), ID_TEXT);
    assert_eq!(record.size_bytes(), record.bytes().len() + 36);
    let size = record.size_bytes();
    let moment = EmittedAt::new(moment);
    let within = |max| {
        EncodedRecord::encode_within(id(), data, None, &moment, max, &mut Arena::new(data.len()))
    };
    assert_eq!(within(size).as_ref(), Ok(&record));
    assert_eq!(within(size - 1), Err(size));

    // Another library agrees that it is JSON with these three fields.
    let value: serde_json::Value = serde_json::from_slice(record.bytes()).unwrap();
    assert_eq!(value.as_object().unwrap().len(), 3);
    assert_eq!(value["_airbyte_ab_id"], ID_TEXT);
    assert_eq!(value["_airbyte_data"], data);
    assert!(value["_airbyte_emitted_at"].is_number());

    let decoded = KinesisRecord::decode(record.bytes()).unwrap();
    assert_eq!(decoded.id(), id());
    assert_eq!(decoded.data(), data);
}

#[test]
fn neighbours_share_memory_until_one_is_detached() {
    let mut arena = Arena::new(300);
    let moment = EmittedAt::new(at(1, 0));
    let mut encode = |data| {
        EncodedRecord::encode_within(id(), data, None, &moment, usize::MAX, &mut arena).unwrap()
    };
    let first = encode(r#"{"a":1}"#);
    let mut second = encode(r#"{"b":"22"}"#);
    let does_not_fit = encode(r#"{"c":"333333333333333333333333333333333333333333333333333"}"#);
    let copy = second.clone();
    assert_eq!(first.bytes().as_ptr_range().end, second.bytes().as_ptr());
    second.detach();
    assert_ne!(second.bytes().as_ptr(), copy.bytes().as_ptr());
    assert_eq!(second, copy);
    for (record, data) in [
        (first, r#"{"a":1}"#),
        (second, r#"{"b":"22"}"#),
        (
            does_not_fit,
            r#"{"c":"333333333333333333333333333333333333333333333333333"}"#,
        ),
    ] {
        let decoded = KinesisRecord::decode(record.bytes()).unwrap();
        assert_eq!(decoded.data(), data);
    }
}

#[test]
fn the_envelope_byte_by_byte() {
    let record = EncodedRecord::encode(id(), r#"{"name":"a\"b"}"#, at(1_795_372_724, 66_882_930));
    assert_eq!(
        text(&record),
        r#"{"_airbyte_ab_id":"0b5c1b0e-3c5a-4b0e-9d5e-0123456789ab","_airbyte_data":"{\"name\":\"a\\\"b\"}","_airbyte_emitted_at":1795372724.06688293}"#
    );
}

#[test]
fn the_time_has_the_decimals_it_needs_and_no_more() {
    assert_eq!(
        emitted_at(at(1_795_372_724, 66_882_930)),
        "1795372724.06688293"
    );
    assert_eq!(
        emitted_at(at(1_795_372_724, 123_456_789)),
        "1795372724.123456789"
    );
    assert_eq!(emitted_at(at(1_795_372_724, 1)), "1795372724.000000001");
    assert_eq!(emitted_at(at(1_795_372_724, 500_000_000)), "1795372724.5");
    assert_eq!(emitted_at(at(1_795_372_720, 0)), "1795372720");
    assert_eq!(emitted_at(at(9, 999_999_999)), "9.999999999");
    assert_eq!(emitted_at(at(0, 100)), "0.0000001");
    assert_eq!(emitted_at(at(0, 0)), "0");
    assert_eq!(emitted_at(UNIX_EPOCH - Duration::from_secs(5)), "0");
    // The furthest that the clock of a 64-bit system can tell.
    let furthest = u64::try_from(i64::MAX).unwrap();
    assert_eq!(emitted_at(at(furthest, 0)), furthest.to_string());
}

#[test]
fn what_other_json_libraries_change_stays_as_it_is() {
    for data in [
        "{}",
        r#"{"n":12345678901234567890.1,"big":1e400,"zero":-0.0,"e":1E+2,"long":0.1000000000000000055511151231257827}"#,
        r#"{"z":1,"a":2,"z":3}"#,
        r#"{ "spaced" : [ 1 , 2 ] }"#,
        "{\t\"tab\"\r:\n1}",
        r#"{"pair":"\ud83d\ude00","lone":"\ud800","upper":"\u00E9","slash":"\/"}"#,
        r#"{"nested":"{\"a\":\"{\\\"b\\\":1}\"}","path":"C:\\dir\\"}"#,
        "{\"separator\":\"\u{2028}\u{2029}\",\"del\":\"\u{7F}\",\"emoji\":\"😀\"}",
        "",
        "\"",
        "\\",
        "\0",
        "no JSON at all \u{1F}\u{8}\u{C}",
    ] {
        assert_round_trip(data, at(1_795_372_724, 66_882_930));
    }
}

#[test]
fn a_record_of_20_mb() {
    for piece in ["é\"", "\u{1}"] {
        let data = format!(r#"{{"big":"{}"}}"#, piece.repeat(20_000_000 / piece.len()));
        assert_round_trip(&data, at(1_795_372_724, 0));
    }
}

#[test]
fn debug_output_shows_no_content() {
    let record = EncodedRecord::encode(id(), r#"{"email":"someone@example.com"}"#, at(5, 0));
    let decoded = KinesisRecord::decode(record.bytes()).unwrap();
    assert_eq!(
        format!("{record:?}"),
        format!("EncodedRecord {{ len: {} }}", record.bytes().len())
    );
    assert_eq!(
        format!("{decoded:?}"),
        format!("KinesisRecord {{ id: {ID_TEXT}, data_len: 31, .. }}")
    );
}

#[test]
fn fields_may_come_in_any_order_and_others_between_them() {
    let record = KinesisRecord::decode(
        br#"{ "_airbyte_emitted_at": 1.79537272406688293E9, "x": [1], "_airbyte_data": "{\"a\":1}", "_airbyte_ab_id": "0b5c1b0e-3c5a-4b0e-9d5e-0123456789ab" }"#,
    )
    .unwrap();
    assert_eq!(record.id(), id());
    assert_eq!(record.data(), r#"{"a":1}"#);
    assert_eq!(record.emitted_at(), "1.79537272406688293E9");
}

#[test]
fn what_is_not_an_envelope_is_refused_without_quoting_it() {
    let fields = |id: &str, data: &str, emitted_at: &str| {
        format!(
            r#"{{"_airbyte_ab_id":{id},"_airbyte_data":{data},"_airbyte_emitted_at":{emitted_at}}}"#
        )
    };
    let good_id = format!("\"{ID_TEXT}\"");
    for (json, expected) in [
        (
            fields(&good_id, r#"{"secret":1}"#, "1"),
            DecodeError::Fields,
        ),
        (fields(&good_id, "null", "1"), DecodeError::Fields),
        (fields("17", r#""secret""#, "1"), DecodeError::Fields),
        (fields(r#""secret""#, r#""""#, "1"), DecodeError::Id),
        (
            fields(&good_id, r#""""#, r#""secret""#),
            DecodeError::EmittedAt,
        ),
        (fields(&good_id, r#""""#, "null"), DecodeError::EmittedAt),
        (fields(&good_id, r#""""#, "[1]"), DecodeError::EmittedAt),
        (
            format!(r#"{{"_airbyte_ab_id":{good_id}}}"#),
            DecodeError::Fields,
        ),
        (r#"["secret"]"#.to_owned(), DecodeError::Fields),
        (
            "secret".to_owned(),
            DecodeError::Syntax { line: 1, column: 1 },
        ),
        (String::new(), DecodeError::Syntax { line: 1, column: 0 }),
        (
            fields(&good_id, r#""""#, "1") + "x",
            DecodeError::Syntax {
                line: 1,
                column: 101,
            },
        ),
        (
            r#"{"_airbyte_data":"","_airbyte_data":""}"#.to_owned(),
            DecodeError::Fields,
        ),
    ] {
        let error = KinesisRecord::decode(json.as_bytes()).unwrap_err();
        assert_eq!(error, expected, "{json}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
    }
    assert!(KinesisRecord::decode(b"{\"_airbyte_data\":\"\xFF\"}").is_err());
}

fn any_moment() -> impl Strategy<Value = SystemTime> {
    (
        prop_oneof![0..5_000_000_000_u64, 0..=u64::from(u32::MAX) << 30],
        prop_oneof![
            0..1_000_000_000_u32,
            Just(0),
            (0..1000_u32).prop_map(|ms| ms * 1_000_000)
        ],
    )
        .prop_map(|(seconds, nanos)| at(seconds, nanos))
}

/// JSON text as sources write it, strange numbers and escapes included.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<f64>().prop_map(|n| format!("{n:e}")),
        "-?[1-9][0-9]{0,40}(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?",
        any::<String>().prop_map(|s| serde_json::to_string(&s).unwrap()),
        "\"(\\\\u[0-9a-fA-F]{4}|\\\\[\"\\\\/bfnrt]|[ -!#-\\[\\]-~]|é|\u{2028}|\u{7F}){0,40}\"",
    ];
    leaf.prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(|v| format!("[{}]", v.join(", "))),
            prop::collection::vec(("[a-c]{1,2}", inner), 0..8).prop_map(|fields| {
                let fields: Vec<_> = fields.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_arrives_as_it_was(data in any_json(), moment in any_moment()) {
        assert_round_trip(&data, moment);
    }

    #[test]
    fn any_text_arrives_as_it_was(data in any::<String>(), moment in any_moment()) {
        assert_round_trip(&data, moment);
    }

    #[test]
    fn any_time_is_the_shortest_exact_decimal(moment in any_moment()) {
        let since_epoch = moment.duration_since(UNIX_EPOCH).unwrap();
        let nine_decimals = format!("{}.{:09}", since_epoch.as_secs(), since_epoch.subsec_nanos());
        prop_assert_eq!(emitted_at(moment), nine_decimals.trim_end_matches('0').trim_end_matches('.'));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = KinesisRecord::decode(&bytes);
    }
}
