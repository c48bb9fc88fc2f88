//! The tables as Markdown, and as a page.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use tgm_eval::bootstrap::Interval;

use super::summary::{Row, Summary};
use crate::html::escape;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:80rem;margin:2rem auto;padding:0 1rem;color:#222}\
table{border-collapse:collapse;display:block;overflow-x:auto}td,th{padding:.2rem .6rem;text-align:right;\
border-bottom:1px solid #ddd;white-space:nowrap}th:first-child,td:first-child,th:nth-child(2),td:nth-child(2)\
{text-align:left}.sure{font-weight:600}svg{vertical-align:middle}";

/// The cells of a table as text, the heading first.
struct Cells {
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
}

fn cells(summary: &Summary) -> Cells {
    let protocols = protocols(summary);
    let gains = summary.rows.iter().any(|row| !row.gain.is_empty());
    let paper = summary.rows.iter().any(|row| row.paper.is_some());
    let mut heading: Vec<String> =
        ["world", "arm", "seeds", "masked loss", "contrastive"].map(String::from).into();
    for protocol in &protocols {
        heading.push(format!("{protocol} top-1"));
        if gains {
            heading.push("joint − MAE".into());
        }
    }
    if paper {
        heading.push("paper".into());
    }
    let row = |row: &Row| {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.3}"));
        let seeds = if row.seeds.is_empty() { String::new() } else { row.seeds.len().to_string() };
        let mut cells = vec![
            row.world.clone(),
            row.name.clone(),
            seeds,
            number(row.masked_loss),
            number(row.contrastive),
        ];
        for protocol in &protocols {
            cells.push(row.top1.get(*protocol).map_or(String::new(), |top1| interval(*top1, false)));
            if gains {
                cells.push(row.gain.get(*protocol).map_or(String::new(), |gain| interval(*gain, true)));
            }
        }
        if paper {
            cells.push(row.paper.unwrap_or_default().to_owned());
        }
        cells
    };
    Cells { heading, rows: summary.rows.iter().map(row).collect() }
}

fn protocols(summary: &Summary) -> BTreeSet<&str> {
    summary.rows.iter().flat_map(|row| row.top1.keys().map(String::as_str)).collect()
}

/// In percent.
fn interval(Interval { mean, low, high }: Interval, signed: bool) -> String {
    let [mean, low, high] = [mean, low, high].map(|share| 100.0 * share);
    if signed {
        format!("{mean:+.1} ({low:+.1} … {high:+.1})")
    } else {
        format!("{mean:.1} ({low:.1} … {high:.1})")
    }
}

/// All tables as Markdown.
pub fn markdown(summaries: &[Summary], how: &str) -> String {
    let mut text = format!("{how}\n");
    for summary in summaries {
        let Cells { heading, rows } = cells(summary);
        let _ = write!(text, "\n## {}\n\nThe paper: {}\n\n", summary.title, summary.claim);
        let _ = writeln!(text, "| {} |", heading.join(" | "));
        let _ = writeln!(text, "|{}", "---|".repeat(heading.len()));
        for row in rows {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
    }
    text
}

/// All tables as one self-contained page, with a bar for each interval.
pub fn page(summaries: &[Summary], how: &str) -> String {
    let mut html = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <title>The paper in small</title><style>{STYLE}</style><h1>The paper in small</h1><p>{}",
        escape(how)
    );
    for summary in summaries {
        let Cells { heading, rows } = cells(summary);
        let _ = write!(
            html,
            "<h2>{}</h2><p>The paper: {}</p><table><tr>",
            escape(summary.title),
            escape(summary.claim)
        );
        heading.iter().for_each(|cell| html += &format!("<th>{}", escape(cell)));
        html += "<th>linear top-1, 0 to 100 %";
        for (cells, row) in rows.iter().zip(&summary.rows) {
            html += if row.gain.get("linear").is_some_and(Interval::excludes_zero) {
                "<tr class=sure>"
            } else {
                "<tr>"
            };
            cells.iter().for_each(|cell| html += &format!("<td>{}", escape(cell)));
            html += "<td>";
            html += &row.top1.get("linear").or(row.top1.get("knn")).map_or(String::new(), |top1| bar(*top1));
        }
        html += "</table>";
    }
    html
}

/// The interval as a line with a dot at its mean, 200 units for 100 %.
fn bar(Interval { mean, low, high }: Interval) -> String {
    let [mean, low, high] = [mean, low, high].map(|share| 200.0 * share);
    format!(
        "<svg width=200 height=12 role=img><path d=\"M0 11.5H200\" stroke=\"#ddd\"/><path d=\"M{low:.1} 6H{high:.1}\" \
         stroke=\"#357\" stroke-width=2 /><circle cx={mean:.1} cy=6 r=4 fill=\"#357\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn summary() -> Summary {
        let interval = |mean| Interval { mean, low: mean - 0.1, high: mean + 0.1 };
        let row = Row {
            world: "static-frame".into(),
            name: "text-joint".into(),
            seeds: vec![0, 1],
            masked_loss: Some(0.25),
            contrastive: None,
            top1: BTreeMap::from([("linear".to_owned(), interval(0.5))]),
            gain: BTreeMap::from([("linear".to_owned(), interval(0.2))]),
            paper: Some("33.4"),
        };
        Summary { title: "A <table>", claim: "It helps.", rows: vec![row] }
    }

    #[test]
    fn a_line_has_its_seeds_losses_accuracy_gain_and_the_papers_number() {
        let text = markdown(&[summary()], "By hand.");
        let line = "| static-frame | text-joint | 2 | 0.250 |  | 50.0 (40.0 … 60.0) | +20.0 (+10.0 … +30.0) | 33.4 |";
        assert!(text.lines().any(|found| found == line), "{text}");
        assert!(text.starts_with("By hand.\n"));
    }

    #[test]
    fn the_page_is_one_file_with_every_number_and_no_markup_from_texts() {
        let html = page(&[summary()], "By <hand>.");
        assert!(html.contains("By &lt;hand&gt;.") && html.contains("A &lt;table&gt;"));
        assert!(html.contains("50.0 (40.0 … 60.0)") && html.contains("<tr class=sure>"));
        assert!(!html.contains("http") && !html.contains("<script"), "needs nothing from elsewhere");
    }
}
