//! Tests of filters, orders and tokens.

use super::*;

const RUNS: Listing = Listing {
    noun: "run",
    table: "run r",
    columns: "r.id",
    id: "r.id",
    fields: &[
        Field {
            names: &["name", "display_name"],
            sql: "r.name",
            kind: Kind::Text,
        },
        Field {
            names: &["created_at"],
            sql: "r.created_at",
            kind: Kind::Time,
        },
        Field {
            names: &["storage_state"],
            sql: "r.archived",
            kind: Kind::Names(&[
                ("AVAILABLE", 0),
                ("STORAGESTATE_AVAILABLE", 0),
                ("ARCHIVED", 1),
            ]),
        },
        Field {
            names: &["state"],
            sql: "r.state",
            kind: Kind::State,
        },
    ],
    tags: Some("r.tags"),
    ..Listing::PLAIN
};

fn conditions(filter: &str) -> Result<(String, usize)> {
    let mut conditions = Conditions::default();
    RUNS.filter(filter, &mut conditions)?;
    Ok((conditions.clause(), conditions.values.len()))
}

fn one(predicate: &str) -> Result<(String, usize)> {
    conditions(&format!("{{\"predicates\": [{predicate}]}}"))
}

#[test]
fn predicates_become_numbered_conditions() {
    let filter = r#"{"predicates": [
        {"op": "IS_SUBSTRING", "key": "name", "string_value": "mn"},
        {"operation": 8, "key": "display_name", "stringValues": {"values": ["a", "b"]}},
        {"op": 5, "key": "created_at", "timestamp_value": "1970-01-01T00:01:00Z"}]}"#;
    let (sql, values) = conditions(filter).unwrap();
    assert_eq!(
        sql,
        " WHERE instr(r.name, $1) > 0 AND r.name IN ($2, $3) AND r.created_at >= $4"
    );
    assert_eq!(values, 4);
}

#[test]
fn names_become_the_numbers_that_fit() {
    for (predicate, sql) in [
        (
            r#"{"operation": "NOT_EQUALS", "key": "storage_state", "string_value": "ARCHIVED"}"#,
            " WHERE r.archived = $1",
        ),
        (
            r#"{"operation": "EQUALS", "key": "storage_state", "string_value": "PURPLE"}"#,
            " WHERE r.archived IN ()",
        ),
        (
            r#"{"operation": 1, "key": "state", "string_value": "Terminating"}"#,
            " WHERE r.state = $1",
        ),
    ] {
        assert_eq!(one(predicate).unwrap().0, sql, "{predicate}");
    }
}

#[test]
fn tags_are_compared_by_key() {
    let (sql, values) = one(r#"{"op": 1, "key": "tags.team", "string_value": "a"}"#).unwrap();
    assert!(
        sql.contains("json_each(r.tags) WHERE key = $1 AND atom = $2"),
        "{sql}"
    );
    assert_eq!(values, 2);
    assert!(one(r#"{"op": 9, "key": "tags.team", "string_value": "a"}"#).is_err());
}

#[test]
fn a_filter_encoded_twice_is_understood() {
    let twice = "%7B%22predicates%22%3A%5B%7B%22op%22%3A1%2C%22key%22%3A%22name%22%2C%22string_value%22%3A%22x%22%7D%5D%7D";
    assert_eq!(
        conditions(twice).unwrap(),
        (" WHERE r.name = $1".to_owned(), 1)
    );
}

#[test]
fn bad_requests_say_what_is_allowed() {
    for (filter, says) in [
        ("{", "not a JSON object"),
        (r#"{"predicate": []}"#, "unknown field \"predicate\""),
        (
            r#"{"predicates": [{"op": 1, "key": "colour", "string_value": "x"}]}"#,
            "allowed: name",
        ),
        (
            r#"{"predicates": [{"op": 8, "key": "name", "string_value": "x"}]}"#,
            "list",
        ),
        (
            r#"{"predicates": [{"op": 1, "key": "name", "string_values": {"values": ["x"]}}]}"#,
            "only IN",
        ),
        (
            r#"{"predicates": [{"op": "LIKE", "key": "name", "string_value": "x"}]}"#,
            "EQUALS",
        ),
        (
            r#"{"predicates": [{"op": 9, "key": "name", "int_value": 3}]}"#,
            "IS_SUBSTRING",
        ),
        (
            r#"{"predicates": [{"op": 9, "key": "created_at", "string_value": "3"}]}"#,
            "does not fit",
        ),
        (
            r#"{"predicates": [{"op": 1, "key": "", "string_value": "3"}]}"#,
            "key is empty",
        ),
        (
            r#"{"predicates": [{"op": 1, "key": "created_at", "string_value": "soon"}]}"#,
            "does not fit",
        ),
        (r#"{"predicates": [{"op": 1, "key": "name"}]}"#, "no value"),
    ] {
        let error = conditions(filter).unwrap_err().to_string();
        assert!(error.contains(says), "{filter}: {error}");
    }
    assert!(page_size(Some("-1")).is_err());
    assert!(RUNS.order("name sideways").is_err());
    assert!(RUNS.order("name desc please").is_err());
    assert_eq!(page_size(Some("5000")).unwrap(), 200);
}
