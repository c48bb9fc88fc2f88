//! The page: everything in one file, readable on a phone, light or dark as the reader's system is.

use std::fmt::Write;

use super::View;
use crate::html::{escape, png_address};

const STYLE: &str = include_str!("page.css");

/// The page of these views; `pictures` has the PNG bytes of each panel.
pub(super) fn html(views: &[View], pictures: &[Vec<Vec<u8>>]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>What guides the masks</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>What guides the masks</h1>\n\
         <p class=\"lead\">Each strip has one picture for each temporal slot of the clip, in order. \
         In masks, dark is hidden from the encoder.</p>\n"
    );
    // Writing to a string cannot fail.
    let _ = write_all(&mut page, views, pictures);
    page += "<footer>Made by <code>tgm viz</code>. The strips lie beside this page as PNG files, too.</footer>\n\
             </main>\n</body>\n</html>\n";
    page
}

fn write_all(page: &mut String, views: &[View], pictures: &[Vec<Vec<u8>>]) -> std::fmt::Result {
    if views.len() > 1 {
        writeln!(page, "<nav aria-label=\"Clips\">")?;
        for (i, view) in views.iter().enumerate() {
            writeln!(page, "<a href=\"#clip-{i}\">{}</a>", escape(&view.title))?;
        }
        writeln!(page, "</nav>")?;
    }
    for (i, (view, pictures)) in views.iter().zip(pictures).enumerate() {
        writeln!(page, "<article id=\"clip-{i}\">\n<header>\n<h2>{}</h2>", escape(&view.title))?;
        match &view.caption {
            Some(caption) => writeln!(page, "<p class=\"caption\">{}</p>", escape(caption))?,
            None => writeln!(page, "<p class=\"none\">no caption</p>")?,
        }
        writeln!(page, "</header>\n<div class=\"strips\" tabindex=\"0\" aria-label=\"Strips\">")?;
        for (panel, png) in view.panels.iter().zip(pictures) {
            let class = if panel.name.starts_with("oracle") { " class=\"oracle\"" } else { "" };
            let (title, note) = (escape(&panel.title), escape(&panel.note));
            let (width, height) = (panel.strip.width, panel.strip.height);
            let small = if height < 150 { " class=\"small\"" } else { "" };
            writeln!(
                page,
                "<figure{class}><figcaption><b>{title}</b> <span>{note}</span></figcaption>\
                 <img{small} alt=\"{title}\" width=\"{width}\" height=\"{height}\" \
                 src=\"{}\"></figure>",
                png_address(png)
            )?;
        }
        writeln!(page, "</div>\n</article>")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_are_text_and_never_markup() {
        let view = View {
            title: "a<b>.mp4".into(),
            caption: Some("<script>alert(\"x\")</script> & more".into()),
            panels: Vec::new(),
        };
        let page = html(&[view], &[Vec::new()]);
        assert!(page.contains("a&lt;b&gt;.mp4"));
        assert!(page.contains("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; more"));
        assert!(!page.contains("<script"));
    }
}
