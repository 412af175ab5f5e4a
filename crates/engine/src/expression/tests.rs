//! Expressions, each with what it must come to.

use super::*;
use serde_json::json;

struct Given;
impl Scope for Given {
    fn lookup(&self, to: &Ref) -> Option<Value> {
        let Ref::Input(name) = to else { return None };
        match name.as_str() {
            "n" => Some(json!(3)),
            "text" => Some(json!("{\"a\": {\"b\": [1, 2]}}")),
            "map" => Some(json!({"a": 1})),
            _ => None,
        }
    }
}

fn input(name: &str) -> Expression {
    Expression::Ref(Ref::Input(name.into()))
}
fn constant(value: Value) -> Expression {
    Expression::Constant(value)
}
fn compared(left: Expression, by: Comparison, right: Expression) -> Expression {
    let (left, right) = (Box::new(left), Box::new(right));
    Expression::Compare { left, by, right }
}
fn at(of: Expression, key: Value) -> Expression {
    Expression::Index(Box::new(of), Box::new(constant(key)))
}

#[test]
fn parts_of_json_texts_are_selected() {
    let parsed = Expression::ParseJson(Box::new(input("text")));
    let inner = at(at(parsed, json!("a")), json!("b"));
    assert_eq!(inner.value(&Given), Ok(Some(json!([1, 2]))));
    assert_eq!(
        at(inner.clone(), json!(1)).value(&Given),
        Ok(Some(json!(2)))
    );
    assert!(at(inner, json!(2)).value(&Given).is_err());
    assert_eq!(
        at(input("map"), json!("a")).value(&Given),
        Ok(Some(json!(1)))
    );
    let missing = at(input("map"), json!("z")).value(&Given);
    assert_eq!(missing, Err("there is no key \"z\"".into()));
}

#[test]
fn numbers_compare_by_value_and_types_do_not_mix() {
    use Comparison::*;
    let check = |left: Value, by, right: Value, expect: core::result::Result<bool, ()>| {
        let expression = compared(constant(left), by, constant(right));
        let got = expression.holds(&Given).map_err(|_| ());
        assert_eq!(got, expect, "{}", expression.written(&|_| String::new()));
    };
    check(json!(3), Equal, json!(3.0), Ok(true));
    check(json!(2), Less, json!(2.5), Ok(true));
    check(json!("10"), Less, json!("9"), Ok(true));
    check(json!(10), Less, json!(9), Ok(false));
    check(json!("3"), Equal, json!(3), Ok(false));
    check(json!("3"), NotEqual, json!(3), Ok(true));
    check(json!("3"), Less, json!(4), Err(()));
    check(json!(true), Equal, json!(true), Ok(true));
    check(json!(null), Equal, json!("a"), Ok(false));
    check(json!([1]), Equal, json!([1]), Ok(true));
}

#[test]
fn conversions_refuse_what_is_no_number() {
    let int = |value| Expression::Integer(Box::new(constant(value))).value(&Given);
    assert_eq!(int(json!(3.9)), Ok(Some(json!(3))));
    assert_eq!(int(json!("-4")), Ok(Some(json!(-4))));
    assert!(int(json!("four")).is_err());
    assert!(int(json!(null)).is_err());
    let double = |value| Expression::Double(Box::new(constant(value))).value(&Given);
    assert_eq!(double(json!(3)), Ok(Some(json!(3.0))));
    assert!(double(json!([])).is_err());
}

#[test]
fn the_first_that_is_there_counts_and_nothing_is_null() {
    let first = Expression::First(alloc::vec![input("gone"), input("n")]);
    assert_eq!(first.value(&Given), Ok(Some(json!(3))));
    assert_eq!(
        Expression::First(alloc::vec![input("gone")]).value(&Given),
        Ok(None)
    );
    let is_null = compared(input("gone"), Comparison::Equal, constant(Value::Null));
    assert_eq!(is_null.holds(&Given), Ok(true));
}

#[test]
fn truth_is_only_a_boolean() {
    assert!(input("n").holds(&Given).is_err());
    let three = compared(input("n"), Comparison::Equal, constant(json!(3)));
    let not = Expression::Not(Box::new(three.clone()));
    let broken = input("text");
    let all = Expression::All(alloc::vec![not.clone(), broken.clone()]);
    assert_eq!(all.holds(&Given), Ok(false));
    let any = Expression::Any(alloc::vec![three, broken]);
    assert_eq!(any.holds(&Given), Ok(true));
}
