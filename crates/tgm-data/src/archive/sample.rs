//! Videos and what is said about them in the same archive.

use std::collections::HashMap;
use std::path::Path;

use super::Member;
use crate::manifest::is_video;

/// A video of an archive and the members beside it, in WebDataset's layout.
///
/// Members belong together when they have the same folder and the same name up to the first dot. A longer name that they share,
/// up to the last dot, counts first, so that `v1.0_a.mp4` finds `v1.0_a.txt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample<'a> {
    /// The video.
    pub video: &'a Member,
    /// `KEY.json`: values by the names of a manifest's columns.
    pub json: Option<&'a Member>,
    /// `KEY.txt`: a caption a line.
    pub text: Option<&'a Member>,
    /// `KEY.cls`: the label.
    pub class: Option<&'a Member>,
}

/// The videos of an archive, in its order. Hidden members are left out.
pub fn samples(members: &[Member]) -> Vec<Sample<'_>> {
    let by_name: HashMap<&str, &Member> =
        members.iter().map(|member| (member.name.as_str(), member)).collect();
    let beside = |video: &Member, ending: &str| {
        keys(&video.name).find_map(|key| by_name.get(format!("{key}.{ending}").as_str()).copied())
    };
    let videos = members.iter().filter(|member| is_shown(&member.name));
    let sample = |video| Sample {
        video,
        json: beside(video, "json"),
        text: beside(video, "txt"),
        class: beside(video, "cls"),
    };
    videos.map(sample).collect()
}

fn is_shown(name: &str) -> bool {
    is_video(Path::new(name)) && !name.split('/').any(|part| part.starts_with('.'))
}

/// The name up to its last dot, and up to its first.
fn keys(name: &str) -> impl Iterator<Item = &str> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let (last, first) = (name.rfind('.'), name[file..].find('.').map(|dot| file + dot));
    [last, first].into_iter().flatten().map(|dot| &name[..dot])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_one_key_belong_together() {
        let names =
            ["a.mp4", "a.txt", "d.1/b.json", "d.1/b.cls", "d.1/b.mp4", "v1.0_c.mp4", "v1.0_c.txt", "v1.txt"];
        let names =
            [&names[..], &[".hidden.mp4", "._a.mp4", ".git/a.mp4", "lone.txt", "w.left.webm", "w.json"]]
                .concat();
        let member = |(start, name): (u64, &&str)| Member { name: (*name).to_owned(), start, length: 1 };
        let members: Vec<Member> = (0..).zip(&names).map(member).collect();
        let found: Vec<_> = samples(&members)
            .iter()
            .map(|sample| {
                let name =
                    |member: Option<&Member>| member.map_or("-", |member| names[member.start as usize]);
                [sample.video.name.clone(), [sample.json, sample.text, sample.class].map(name).join(" ")]
            })
            .collect();
        assert_eq!(
            found,
            [
                ["a.mp4", "- a.txt -"],
                ["d.1/b.mp4", "d.1/b.json - d.1/b.cls"],
                ["v1.0_c.mp4", "- v1.0_c.txt -"],
                ["w.left.webm", "w.json - -"],
            ]
        );
    }
}
