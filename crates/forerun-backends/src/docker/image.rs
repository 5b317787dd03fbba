//! Pulling images: each one once at a time, whoever wants it, and before it is needed where that can be.

use super::engine::Engine;
use bollard::models::CreateImageInfo;
use futures_util::StreamExt;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// A pull that says nothing for so long has failed.
const SILENCE: Duration = Duration::from_secs(120);
/// Pulls at a time: more would only share the same line.
const PULLS_MAX: usize = 2;
/// Layers whose progress is added up; an image may have 127.
const LAYERS_MAX: usize = 512;

/// How far a pull is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pull {
    /// `pulling web:1, 40%`
    Running(String),
    Done,
    /// The whole reason, as the engine tells it.
    Failed(String),
}

/// Pulls that are under way, by image, in words; for whoever asks, on any thread.
pub(super) type Pulls = Arc<Mutex<BTreeMap<String, String>>>;

#[derive(Debug)]
pub(super) struct Images {
    running: RefCell<HashMap<String, watch::Receiver<Pull>>>,
    turns: Semaphore,
    told: Pulls,
}

impl Images {
    pub(super) fn new(told: Pulls) -> Self {
        Self { running: RefCell::default(), turns: Semaphore::new(PULLS_MAX), told }
    }

    fn tell(&self, image: &str, how_far: Option<&str>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        match how_far {
            Some(how_far) => _ = told.insert(image.to_owned(), how_far.to_owned()),
            None => _ = told.remove(image),
        }
    }

    /// Joins the pull of an image, or begins one. It goes on whether anybody waits for it or not.
    pub(super) fn pull(self: &Rc<Self>, engine: &Engine, image: &str) -> watch::Receiver<Pull> {
        if let Some(running) = self.running.borrow().get(image) {
            return running.clone();
        }
        let (tell, told) = watch::channel(Pull::Running(format!("pulling {image}")));
        self.running.borrow_mut().insert(image.to_owned(), told.clone());
        self.tell(image, Some(&format!("pulling {image}")));
        let (images, engine, image) = (Rc::clone(self), engine.clone(), image.to_owned());
        tokio::task::spawn_local(async move {
            let end = match images.turns.acquire().await {
                Ok(_turn) => images.run(&engine, &image, &tell).await,
                Err(_) => Pull::Failed("the docker backend has ended".to_owned()),
            };
            if let Pull::Failed(why) = &end {
                tracing::warn!(image, why, "cannot pull an image");
            }
            // Whoever comes now begins anew: an image may be removed again, and a failure may be over.
            images.running.borrow_mut().remove(&image);
            images.tell(&image, None);
            tell.send_replace(end);
        });
        told
    }

    async fn run(&self, engine: &Engine, image: &str, tell: &watch::Sender<Pull>) -> Pull {
        let mut layers = Layers::default();
        let mut stream = engine.pull(image);
        loop {
            match timeout(SILENCE, stream.next()).await {
                Ok(Some(Ok(info))) => {
                    let error = info.error_detail.as_ref().and_then(|detail| detail.message.clone());
                    if let Some(message) = error {
                        return Pull::Failed(one_line(&message));
                    }
                    layers.heard(&info);
                    let how_far = layers.sentence(image);
                    self.tell(image, Some(&how_far));
                    tell.send_if_modified(|pull| {
                        let next = Pull::Running(how_far);
                        let news = *pull != next;
                        *pull = next;
                        news
                    });
                }
                Ok(Some(Err(error))) => {
                    return Pull::Failed(engine.failed("pull the image", &error).to_string());
                }
                Ok(None) => return Pull::Done,
                Err(_) => return Pull::Failed(format!("the pull said nothing for {} s", SILENCE.as_secs())),
            }
        }
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Bytes that are here, and bytes in all, of each layer.
#[derive(Debug, Default)]
struct Layers(HashMap<String, (i64, i64)>);

impl Layers {
    fn heard(&mut self, info: &CreateImageInfo) {
        let Some(layer) = &info.id else { return };
        let status = info.status.as_deref().unwrap_or_default();
        let done = matches!(status, "Download complete" | "Pull complete" | "Already exists" | "Extracting");
        if done {
            if let Some((here, all)) = self.0.get_mut(layer) {
                *here = *all;
            }
            return;
        }
        let Some(detail) = info.progress_detail.as_ref().filter(|_| status == "Downloading") else { return };
        if let (Some(here), Some(all)) = (detail.current, detail.total)
            && (self.0.contains_key(layer) || self.0.len() < LAYERS_MAX)
        {
            self.0.insert(layer.clone(), (here.clamp(0, all.max(0)), all.max(0)));
        }
    }

    fn sentence(&self, image: &str) -> String {
        let (here, all) = self.0.values().fold((0, 0), |sum, layer| (sum.0 + layer.0, sum.1 + layer.1));
        match all {
            0 => format!("pulling {image}"),
            all => format!("pulling {image}, {}%", here * 100 / all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    #[test]
    fn progress_is_of_all_layers_together() {
        let mut layers = Layers::default();
        assert_eq!(layers.sentence("web"), "pulling web");
        let mut hear = |id: &str, status: &str, bytes: Option<(i64, i64)>, sentence: &str| {
            let detail =
                bytes.map(|(current, total)| ProgressDetail { current: Some(current), total: Some(total) });
            layers.heard(&CreateImageInfo {
                id: Some(id.to_owned()),
                status: Some(status.to_owned()),
                progress_detail: detail,
                ..CreateImageInfo::default()
            });
            assert_eq!(layers.sentence("web"), sentence);
        };
        hear("a", "Downloading", Some((10, 100)), "pulling web, 10%");
        hear("b", "Downloading", Some((0, 300)), "pulling web, 2%");
        hear("a", "Extracting", Some((1, 100)), "pulling web, 25%");
        hear("b", "Download complete", None, "pulling web, 100%");
        hear("c", "Already exists", None, "pulling web, 100%");
    }
}
