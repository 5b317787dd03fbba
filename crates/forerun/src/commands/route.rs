//! `forerun route URL`: where a request would go, and what each rule made of it.

use super::control::percent;
use crate::ask::Asked;
use crate::cli::RouteArgs;
use crate::failure::Failure;
use crate::terminal;
use serde::Deserialize;
use std::io::Write;

/// The answer of `/v1/route`.
#[derive(Debug, Deserialize)]
struct Answer {
    host: String,
    path: String,
    method: String,
    service: Option<String>,
    state: Option<String>,
    nobody: Option<String>,
    asks_first: bool,
    tried: Vec<Tried>,
    untold: u64,
}

#[derive(Debug, Deserialize)]
struct Tried {
    service: String,
    host: String,
    path: String,
    chosen: bool,
    why: String,
}

/// # Errors
/// Nobody answers, or the URL or a header is none.
pub(crate) fn run(args: &RouteArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut query = format!("/v1/route?url={}&method={}", percent(&args.url), percent(&args.method));
    for header in &args.headers {
        query += &format!("&header={}", percent(header));
    }
    let body = Asked::of(&args.api)?.get(&query)?;
    if args.json {
        return Ok(out.write_all(&body)?);
    }
    let odd = |e: serde_json::Error| Failure::Running(format!("the api gives no route: {e}"));
    let answer: Answer = serde_json::from_slice(&body).map_err(odd)?;
    Ok(out.write_all(people(&answer).as_bytes())?)
}

fn people(answer: &Answer) -> String {
    let to = match (&answer.service, &answer.state) {
        (Some(service), Some(state)) => format!("goes to {service}, which is {state}"),
        (Some(service), None) => format!("goes to {service}"),
        (None, _) => "goes nowhere: no service is for it, and nothing is woken".to_owned(),
    };
    let mut text = format!("{} {}{} {to}\n", answer.method, answer.host, answer.path);
    if let Some(why) = &answer.nobody {
        text += &format!("it wakes nothing and counts as nobody's activity: {why}\n");
    }
    if answer.asks_first {
        text += "who sends it has to be let in first (auth)\n";
    }
    if answer.tried.is_empty() {
        return text + "there are no rules: no service takes requests\n";
    }
    let mut table = terminal::table(["", "SERVICE", "RULE", "WHY"]);
    for rule in &answer.tried {
        let any = |part: &str| if part.is_empty() { "*".to_owned() } else { part.to_owned() };
        table.add_row(vec![
            if rule.chosen { ">" } else { "" }.to_owned(),
            rule.service.clone(),
            format!("{} {}", any(&rule.host), any(&rule.path)),
            rule.why.clone(),
        ]);
    }
    text += &format!("\n{}", terminal::lines(&table));
    if answer.untold > 0 {
        text += &format!("and {} rules more that do not match\n", answer.untold);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_it_rule_by_rule() {
        let json = r#"{"host":"shop.example","path":"/x","method":"HEAD","service":"shop","state":"asleep",
            "nobody":"a monitor's agent","asks_first":true,"untold":3,"tried":[
            {"service":"shop","host":"shop.example","path":"","matches":true,"chosen":true,"why":"the host is the same"},
            {"service":"db","host":"","path":"/db","matches":false,"chosen":false,"why":"the path begins otherwise"}]}"#;
        let text = people(&serde_json::from_str(json).unwrap());
        let lines: Vec<String> =
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[0], "HEAD shop.example/x goes to shop, which is asleep");
        assert_eq!(lines[1], "it wakes nothing and counts as nobody's activity: a monitor's agent");
        assert_eq!(lines[2], "who sends it has to be let in first (auth)");
        assert_eq!(lines[5], "> shop shop.example * the host is the same");
        assert_eq!(lines[6], "db * /db the path begins otherwise");
        assert_eq!(lines[7], "and 3 rules more that do not match");
        let nowhere = r#"{"host":"x","path":"/","method":"GET","service":null,"state":null,"nobody":null,
            "asks_first":false,"untold":0,"tried":[]}"#;
        let text = people(&serde_json::from_str(nowhere).unwrap());
        assert!(text.starts_with("GET x/ goes nowhere: no service is for it"), "{text}");
        assert!(text.contains("there are no rules"), "{text}");
    }
}
