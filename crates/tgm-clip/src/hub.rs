//! Models by name: the Hugging Face cache first, the network only for what is not there.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use crate::ClipError;
use crate::source::{ALTERNATIVES, describe};

/// How long the hub may take to list a repository. A download itself is not limited.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// The cache and the server behind it.
#[derive(Debug)]
pub(crate) struct Hub {
    /// `None` when no environment variable and no home folder says where the cache is.
    cache: Option<PathBuf>,
    endpoint: String,
    offline: bool,
    timeout: Duration,
}

/// One revision of a repository with everything a model needs.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub folder: PathBuf,
    pub commit: String,
}

impl Hub {
    /// Reads the variables of Python's `huggingface_hub`: `HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`.
    pub fn from_env() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HF_HOME").map(|home| home.join("hub")))
            .or_else(|| std::env::home_dir().map(|home| home.join(".cache/huggingface/hub")));
        let offline = std::env::var("HF_HUB_OFFLINE").unwrap_or_default().to_uppercase();
        Self {
            cache,
            endpoint: std::env::var("HF_ENDPOINT").unwrap_or_else(|_| "https://huggingface.co".to_owned()),
            offline: matches!(offline.as_str(), "1" | "TRUE" | "YES" | "ON"),
            timeout: ANSWER_TIMEOUT,
        }
    }

    /// The folder of a revision in which all files lie, downloaded now where they are not in the cache.
    pub fn snapshot(&self, repo: &str, revision: &str) -> Result<Snapshot, ClipError> {
        let error = |reason: String| ClipError::Hub {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            cache: self.cache.clone().unwrap_or_default(),
            reason,
        };
        let Some(cache) = self.cache.clone().map(Cache::new) else {
            return Err(error("no cache folder: set HF_HOME".into()));
        };
        let handle = Repo::with_revision(repo.to_owned(), RepoType::Model, revision.to_owned());
        if let Some(snapshot) = cached(&cache, &handle) {
            return Ok(snapshot);
        }
        if self.offline {
            return Err(error("HF_HUB_OFFLINE is set".into()));
        }
        let api = ApiBuilder::from_cache(cache.clone())
            .with_endpoint(self.endpoint.clone())
            .build()
            .map_err(|e| error(e.to_string()))?;
        let info = self.list(api.repo(handle.clone())).map_err(error)?;
        // From here on by commit, so that all files are of one revision even if a branch moves meanwhile.
        let pinned = api.repo(Repo::with_revision(repo.to_owned(), RepoType::Model, info.sha.clone()));
        let mut folder = PathBuf::new();
        for alternatives in ALTERNATIVES {
            let files = alternatives
                .iter()
                .find(|files| files.iter().all(|file| info.siblings.iter().any(|s| s.rfilename == *file)))
                .ok_or_else(|| error(format!("the repository has no {}", describe(alternatives))))?;
            for file in files.iter() {
                tracing::info!(repo, revision, file, "downloading unless cached");
                let path = pinned.get(file).map_err(|e| error(format!("{file}: {e}")))?;
                folder = path.parent().map(PathBuf::from).unwrap_or_default();
            }
        }
        // So that the same name is found in the cache next time; without it the network is asked again.
        if let Err(reason) = cache.repo(handle).create_ref(&info.sha) {
            tracing::warn!(repo, revision, %reason, "cannot note the revision in the cache");
        }
        Ok(Snapshot { folder, commit: info.sha })
    }

    /// The repository's files. The client has no time limit of its own, and a network that swallows packets would
    /// otherwise hold us for minutes.
    fn list(&self, repo: ApiRepo) -> Result<RepoInfo, String> {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(repo.info()));
        match receiver.recv_timeout(self.timeout) {
            Ok(answer) => answer.map_err(|e| e.to_string()),
            Err(_) => {
                Err(format!("{} did not answer within {} s", self.endpoint, self.timeout.as_secs_f32()))
            }
        }
    }
}

/// The snapshot, if the cache has all of its files. A revision is a name in `refs`, or a commit itself (then Python's
/// client writes no such name).
fn cached(cache: &Cache, repo: &Repo) -> Option<Snapshot> {
    let root = cache.path().join(repo.folder_name());
    let commit = std::fs::read_to_string(root.join("refs").join(repo.revision()))
        .map(|commit| commit.trim().to_owned())
        .unwrap_or_else(|_| repo.revision().to_owned());
    let folder = root.join("snapshots").join(&commit);
    let has = |files: &&[&str]| files.iter().all(|file| folder.join(file).is_file());
    ALTERNATIVES
        .iter()
        .all(|alternatives| alternatives.iter().any(has))
        .then_some(Snapshot { folder, commit })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Instant;

    use candle_core::Device;
    use tempfile::TempDir;

    use super::*;
    use crate::ClipModel;
    use crate::source::ModelSource;

    const REPO: &str = "someone/clip";
    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn hub(cache: &TempDir, endpoint: String) -> Hub {
        Hub {
            cache: Some(cache.path().into()),
            endpoint,
            offline: false,
            timeout: Duration::from_millis(500),
        }
    }

    #[test]
    fn without_network_the_error_says_what_is_missing_where_and_what_to_do() {
        let cache = TempDir::new().unwrap();
        let unreachable = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let offline = Hub { offline: true, ..hub(&cache, String::new()) };
        for hub in [hub(&cache, format!("http://{unreachable}")), offline] {
            let start = Instant::now();
            let message = hub.snapshot(REPO, "v1").unwrap_err().to_string();
            assert!(start.elapsed() < Duration::from_secs(5));
            for part in [REPO, "v1", &cache.path().display().to_string(), "--set text.model=FOLDER"] {
                assert!(message.contains(part), "{message}");
            }
        }
    }

    #[test]
    fn a_server_that_never_answers_is_given_up() {
        let cache = TempDir::new().unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let hub = hub(&cache, format!("http://{}", silent.local_addr().unwrap()));
        let message = hub.snapshot(REPO, "v1").unwrap_err().to_string();
        assert!(message.contains("did not answer within 0.5 s"), "{message}");
    }

    #[test]
    fn what_pythons_client_cached_is_found_by_branch_and_by_commit() {
        let cache = TempDir::new().unwrap();
        let root = cache.path().join("models--someone--clip");
        let folder = root.join("snapshots").join(COMMIT);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir_all(root.join("refs")).unwrap();
        std::fs::write(root.join("refs/main"), COMMIT).unwrap();
        let offline = Hub { offline: true, ..hub(&cache, String::new()) };
        for file in ["config.json", "pytorch_model.bin", "vocab.json", "merges.txt"] {
            assert!(offline.snapshot(REPO, "main").is_err(), "complete without {file}");
            std::fs::write(folder.join(file), "").unwrap();
        }
        for revision in ["main", COMMIT] {
            let snapshot = offline.snapshot(REPO, revision).unwrap();
            assert_eq!((snapshot.folder.clone(), snapshot.commit.as_str()), (folder.clone(), COMMIT));
        }
        assert!(offline.snapshot(REPO, "other").is_err());
    }

    #[test]
    fn a_model_is_downloaded_once_and_then_found_without_network() {
        let cache = TempDir::new().unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", server.local_addr().unwrap());
        std::thread::spawn(move || server.incoming().flatten().for_each(serve));
        let hub = Hub { timeout: ANSWER_TIMEOUT, ..hub(&cache, endpoint) };
        let downloaded = hub.snapshot(REPO, "v1").unwrap();
        assert_eq!(downloaded.commit, COMMIT);
        let clip = ClipModel::load(&ModelSource::Folder(downloaded.folder), &Device::Cpu).unwrap();
        assert_eq!(clip.embedding_dim(), 12);
        let offline = Hub { offline: true, ..hub };
        for revision in ["v1", COMMIT] {
            assert_eq!(offline.snapshot(REPO, revision).unwrap().commit, COMMIT);
        }
    }

    /// Enough of the hub for one repository: the list of files, and their bytes.
    fn serve(mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut request = String::new();
        reader.read_line(&mut request).unwrap();
        let mut header = String::new();
        let mut range = None;
        while reader.read_line(&mut header).unwrap() > 2 {
            range = header.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned).or(range);
            header.clear();
        }
        let path = request.split(' ').nth(1).unwrap();
        let file = path.rsplit('/').next().unwrap();
        let (headers, body) = if path.starts_with("/api/") {
            let files = ["config.json", "pytorch_model.bin", "model.safetensors", "tokenizer.json"];
            let siblings = files.map(|file| format!(r#"{{"rfilename": "{file}"}}"#)).join(",");
            (String::new(), format!(r#"{{"sha": "{COMMIT}", "siblings": [{siblings}]}}"#).into_bytes())
        } else {
            let all = std::fs::read(format!("../../fixtures/clip-gelu/{file}")).unwrap();
            let range = range.unwrap();
            let (first, last) = range.trim().split_once('-').unwrap();
            let last = last.parse().unwrap_or(all.len() - 1);
            let first: usize = first.parse().unwrap();
            let headers = format!(
                "x-repo-commit: {COMMIT}\r\netag: \"{file}\"\r\ncontent-range: bytes {first}-{last}/{}\r\n",
                all.len()
            );
            (headers, all[first..=last].to_vec())
        };
        let length = body.len();
        write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n")
            .unwrap();
        stream.write_all(&body).unwrap();
    }
}
