//! The FFmpeg calls and fields that `ffmpeg-next` does not offer, and the choice of vector instructions. All `unsafe` of
//! this crate is here.
//!
//! Enumerations that come out of a file are read as plain integers: a value this FFmpeg's headers do not list would be
//! undefined behaviour as a Rust `enum`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_int, c_void};
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use video_rs::ffmpeg::codec::{Context, decoder, threading};
use video_rs::ffmpeg::format::Pixel;
use video_rs::ffmpeg::format::context::{Input, Output};
use video_rs::ffmpeg::format::stream::Stream;
use video_rs::ffmpeg::packet::{Mut, Ref};
use video_rs::ffmpeg::software::scaling;
use video_rs::ffmpeg::{Dictionary, Error, Packet, ffi, frame};

use crate::VideoFile;
use crate::deadline::Deadline;
use crate::yuv::Plane;

/// An open demuxer, with the deadline that it watches.
pub(crate) struct Demuxer {
    // Dropped before the deadline.
    input: Input,
    _deadline: Arc<Deadline>,
}

impl Deref for Demuxer {
    type Target = Input;
    fn deref(&self) -> &Input {
        &self.input
    }
}

impl DerefMut for Demuxer {
    fn deref_mut(&mut self) -> &mut Input {
        &mut self.input
    }
}

/// Opens a local file, or a part of one, for demuxing; reading stops once the deadline has passed.
///
/// Unlike `ffmpeg_next::format::input` this takes any path the system does, never reads it as a URL, and never goes to the
/// network.
pub(crate) fn open_input(file: &VideoFile, deadline: &Arc<Deadline>) -> Result<Demuxer, Error> {
    let url = c_url(file)?;
    // SAFETY: allocates a context or returns null.
    let mut context = unsafe { ffi::avformat_alloc_context() };
    if context.is_null() {
        return Err(Error::Other { errno: video_rs::ffmpeg::error::ENOMEM });
    }
    let mut options = dictionary("protocol_whitelist", "file,subfile");
    // SAFETY: the context is ours and not open yet; the `Demuxer` keeps the deadline alive as long as the context. FFmpeg
    // frees the context when opening fails; `url` is a valid C string; `options` is a dictionary we own, which FFmpeg
    // replaces by the unused entries.
    let opened = unsafe {
        (*context).interrupt_callback = ffi::AVIOInterruptCB {
            callback: Some(is_late),
            opaque: Arc::as_ptr(deadline).cast_mut().cast::<c_void>(),
        };
        ffi::avformat_open_input(&mut context, url.as_ptr(), ptr::null(), &mut options)
    };
    free_dictionary(options);
    check(opened)?;
    // SAFETY: `avformat_open_input` succeeded, so `context` is a valid demuxer that `Input` frees when it drops.
    let input = unsafe { Input::wrap(context) };
    Ok(Demuxer { input, _deadline: deadline.clone() })
}

/// FFmpeg asks this while it waits or searches; anything but zero stops it.
unsafe extern "C" fn is_late(deadline: *mut c_void) -> c_int {
    // SAFETY: `open_input` passed a deadline that lives as long as the context that calls this.
    unsafe { &*deadline.cast::<Deadline>() }.is_past().into()
}

/// Reads and decodes as much of a file as it takes to know what is in its streams; frames of more than `max_pixels` are
/// not decoded.
pub(crate) fn find_stream_info(input: &mut Input, max_pixels: u64) -> Result<(), Error> {
    let limit = max_pixels.to_string();
    let mut options: Vec<_> = (0..input.nb_streams()).map(|_| dictionary("max_pixels", &limit)).collect();
    // SAFETY: the array has one dictionary per stream, as the function asks; it replaces each by its unused entries.
    let found = unsafe { ffi::avformat_find_stream_info(input.as_mut_ptr(), options.as_mut_ptr()) };
    options.into_iter().for_each(free_dictionary);
    check(found)
}

fn c_url(file: &VideoFile) -> Result<CString, Error> {
    CString::new(file.ffmpeg_url().into_encoded_bytes()).map_err(|_| Error::InvalidData)
}

/// A dictionary for an FFmpeg call; whoever asks for it frees it with [`free_dictionary`].
fn dictionary(key: &str, value: &str) -> *mut ffi::AVDictionary {
    let dictionary: Dictionary<'_> = [(key, value)].into_iter().collect();
    // SAFETY: only gives up ownership.
    unsafe { dictionary.disown() }
}

fn free_dictionary(mut dictionary: *mut ffi::AVDictionary) {
    // SAFETY: null or a dictionary this module owns; freed once.
    unsafe { ffi::av_dict_free(&mut dictionary) }
}

fn check(code: c_int) -> Result<(), Error> {
    if code < 0 { Err(Error::from(code)) } else { Ok(()) }
}

/// What the container says about one stream.
pub(crate) struct StreamFacts {
    pub width: u32,
    pub height: u32,
    pub pixel_format: String,
    /// Frame fields are stored apart, or it is not known.
    pub interlaced: bool,
    pub attached_picture: bool,
    pub extradata: Vec<u8>,
    /// Rows (a, b), (c, d) of the display matrix in 16.16 fixed point: displayed x is `a*x + c*y`.
    pub display_matrix: Option<[i32; 4]>,
    /// Packets that the container's own index lists so far.
    pub index_entries: usize,
}

/// Reads [`StreamFacts`].
pub(crate) fn stream_facts(stream: &Stream<'_>) -> StreamFacts {
    // SAFETY: the stream and its parameters live as long as the input that `stream` borrows; fields that hold enumerations are
    // read through integer pointers; `extradata` has `extradata_size` bytes; a display matrix is nine `i32`.
    unsafe {
        let raw = stream.as_ptr();
        let parameters = (*raw).codecpar;
        let extradata = match (*parameters).extradata {
            data if data.is_null() => Vec::new(),
            data => std::slice::from_raw_parts(data, (*parameters).extradata_size.max(0) as usize).to_vec(),
        };
        let field_order = ptr::addr_of!((*parameters).field_order).cast::<c_int>().read();
        let mut size = 0;
        let matrix = ffi::av_stream_get_side_data(
            raw,
            ffi::AVPacketSideDataType::AV_PKT_DATA_DISPLAYMATRIX,
            &mut size,
        );
        let display_matrix = (!matrix.is_null() && size >= 36).then(|| {
            let matrix = matrix.cast::<i32>();
            [0, 1, 3, 4].map(|i| matrix.add(i).read_unaligned())
        });
        StreamFacts {
            width: (*parameters).width.max(0) as u32,
            height: (*parameters).height.max(0) as u32,
            pixel_format: pixel_format_name((*parameters).format),
            interlaced: field_order > ffi::AVFieldOrder::AV_FIELD_PROGRESSIVE as c_int,
            attached_picture: (*raw).disposition & ffi::AV_DISPOSITION_ATTACHED_PIC as c_int != 0,
            extradata,
            display_matrix,
            index_entries: ffi::avformat_index_get_entries_count(raw).max(0) as usize,
        }
    }
}

/// FFmpeg's name of a pixel format number, or the number.
fn pixel_format_name(format: c_int) -> String {
    if format < 0 || format >= ffi::AVPixelFormat::AV_PIX_FMT_NB as c_int {
        return format!("unknown ({format})");
    }
    // SAFETY: the number lies within the enumeration, which has no gaps; the name is a static C string or null.
    let name = unsafe {
        let name = ffi::av_get_pix_fmt_name(std::mem::transmute::<c_int, ffi::AVPixelFormat>(format));
        (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned())
    };
    name.unwrap_or_else(|| format!("unknown ({format})"))
}

/// Tells the demuxer to skip the packets of all other streams.
pub(crate) fn discard_others(input: &mut Input, keep: usize) {
    for i in (0..input.nb_streams() as usize).filter(|i| *i != keep) {
        // SAFETY: `i` is below the number of streams of this live context.
        unsafe { (**(*input.as_mut_ptr()).streams.add(i)).discard = ffi::AVDiscard::AVDISCARD_ALL }
    }
}

/// Seeks to the last key frame at or before `time_stamp`, in the stream's own time base.
pub(crate) fn seek_backward(input: &mut Input, stream: usize, time_stamp: i64) -> Result<(), Error> {
    // SAFETY: the context is live; an unknown stream index is an error code.
    check(unsafe {
        ffi::av_seek_frame(
            input.as_mut_ptr(),
            stream as c_int,
            time_stamp,
            ffi::AVSEEK_FLAG_BACKWARD as c_int,
        )
    })
}

/// Whether the packet is only there to be decoded, not shown (outside of an edit list).
pub(crate) fn is_discarded(packet: &Packet) -> bool {
    // SAFETY: the packet is live. `ffmpeg-next` keeps only the flags it knows, so the field is read here.
    unsafe { (*packet.as_ptr()).flags & ffi::AV_PKT_FLAG_DISCARD as c_int != 0 }
}

/// Opens a decoder with one thread.
///
/// More would be faster for one file, but motion vectors are then lost at random, and many files decode in parallel
/// anyway. `reorder` is the least number of frames the decoder holds back to sort them: H.264 streams that do not
/// state it make FFmpeg guess, and drop frames while it learns.
pub(crate) fn open_decoder(
    stream: &Stream<'_>,
    unpacker: Option<&Unpacker>,
    motion_vectors: bool,
    max_pixels: u64,
    reorder: usize,
) -> Result<decoder::Video, Error> {
    let mut context = Context::from_parameters(stream.parameters())?;
    if let Some(unpacker) = unpacker {
        unpacker.describe(&mut context)?;
    }
    context.set_threading(threading::Config { kind: threading::Type::None, count: 1, ..Default::default() });
    let mut decoder = context.decoder();
    decoder.set_packet_time_base(stream.time_base());
    // SAFETY: the context is live and not opened yet, so its options may be set.
    unsafe {
        let raw = decoder.as_mut_ptr();
        (*raw).max_pixels = i64::try_from(max_pixels).unwrap_or(i64::MAX);
        (*raw).has_b_frames = (*raw).has_b_frames.max(reorder as c_int);
        if motion_vectors {
            (*raw).flags2 |= ffi::AV_CODEC_FLAG2_EXPORT_MVS as c_int;
        }
    }
    decoder.video()
}

/// FFmpeg's `mpeg4_unpack_bframes`: B-frames that DivX packed into the packet of another frame get packets of their own, in the
/// end that of the empty picture which follows. As many packets come out as go in.
pub(crate) struct Unpacker {
    filter: ptr::NonNull<ffi::AVBSFContext>,
}

// SAFETY: an FFmpeg object that no other refers to may be used from any one thread at a time.
unsafe impl Send for Unpacker {}

impl Unpacker {
    /// For the packets of a stream of MPEG-4 Part 2.
    pub(crate) fn new(stream: &Stream<'_>) -> Result<Self, Error> {
        let mut filter = ptr::null_mut();
        // SAFETY: the name is a C string; an unknown one gives null. Allocation sets the pointer or reports an error. The
        // context is not initialised yet, so its input may be described; the stream and its parameters are live.
        unsafe {
            let kind = ffi::av_bsf_get_by_name(c"mpeg4_unpack_bframes".as_ptr());
            if kind.is_null() {
                return Err(Error::BsfNotFound);
            }
            check(ffi::av_bsf_alloc(kind, &mut filter))?;
            let unpacker = Self { filter: ptr::NonNull::new(filter).ok_or(Error::Bug)? };
            check(ffi::avcodec_parameters_copy((*filter).par_in, (*stream.as_ptr()).codecpar))?;
            (*filter).time_base_in = (*stream.as_ptr()).time_base;
            check(ffi::av_bsf_init(filter))?;
            Ok(unpacker)
        }
    }

    /// The packet that takes this one's place.
    pub(crate) fn pass(&mut self, mut packet: Packet) -> Result<Packet, Error> {
        if packet.size() == 0 {
            // To the filter this would be the end.
            return Ok(packet);
        }
        let mut passed = Packet::empty();
        // SAFETY: the context is live and initialised; both packets are ours. Sending takes the first one's content and
        // receiving fills the second, which is empty.
        unsafe {
            check(ffi::av_bsf_send_packet(self.filter.as_ptr(), packet.as_mut_ptr()))?;
            check(ffi::av_bsf_receive_packet(self.filter.as_ptr(), passed.as_mut_ptr()))?;
        }
        Ok(passed)
    }

    /// Forgets a B-frame that waits for its packet: for a seek.
    pub(crate) fn flush(&mut self) {
        // SAFETY: the context is live and initialised.
        unsafe { ffi::av_bsf_flush(self.filter.as_ptr()) }
    }

    /// Tells a decoder that is not open yet what the packets are like.
    fn describe(&self, decoder: &mut Context) -> Result<(), Error> {
        // SAFETY: both contexts are live; initialising the filter described its output.
        check(unsafe {
            ffi::avcodec_parameters_to_context(decoder.as_mut_ptr(), self.filter.as_ref().par_out)
        })
    }
}

impl Drop for Unpacker {
    fn drop(&mut self) {
        let mut filter = self.filter.as_ptr();
        // SAFETY: allocated by `new`, freed once.
        unsafe { ffi::av_bsf_free(&mut filter) }
    }
}

/// Matrix coefficients, range (ISO/IEC 23091-2 numbers as FFmpeg has them) and pixel format name of a decoded frame.
pub(crate) fn frame_color(frame: &frame::Video) -> (c_int, c_int, String) {
    // SAFETY: the frame is live; enumerations are read through integer pointers.
    unsafe {
        let raw = frame.as_ptr();
        let space = ptr::addr_of!((*raw).colorspace).cast::<c_int>().read();
        let range = ptr::addr_of!((*raw).color_range).cast::<c_int>().read();
        (space, range, pixel_format_name((*raw).format))
    }
}

/// The planes of an 8-bit 4:2:0 picture of even size; `None` when its lines are stored bottom up.
pub(crate) fn planes_420(frame: &frame::Video) -> Option<[Plane<'_>; 3]> {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let plane = |i: usize, width: usize, height: usize| {
        // SAFETY: the frame is live. A plane of `height` lines at a positive distance holds that many lines, each of them at
        // least `width` bytes; the slice ends with the last line's last pixel and borrows the frame.
        unsafe {
            let raw = frame.as_ptr();
            let (data, stride) = ((*raw).data[i], usize::try_from((*raw).linesize[i]).ok()?);
            if data.is_null() || stride < width || height == 0 {
                return None;
            }
            let data = std::slice::from_raw_parts(data, (height - 1) * stride + width);
            Some(Plane { data, stride })
        }
    };
    Some([plane(0, width, height)?, plane(1, width / 2, height / 2)?, plane(2, width / 2, height / 2)?])
}

/// swscale's factors of a colour matrix (an `SWS_CS_*` number).
pub(crate) fn matrix_table(matrix: c_int) -> [c_int; 4] {
    // SAFETY: the function returns a static table of four numbers for every argument.
    unsafe { ffi::sws_getCoefficients(matrix).cast::<[c_int; 4]>().read() }
}

/// A loop to be compiled for the widest vectors there are. `run` must be `#[inline(always)]`.
pub(crate) trait Vectorized {
    fn run(self);
}

/// Runs a loop with the widest vectors that this processor has.
pub(crate) fn widest(task: impl Vectorized) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn with_avx2(task: impl Vectorized) {
            task.run();
        }
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { with_avx2(task) };
        }
    }
    task.run();
}

/// Runs a loop where `f32::mul_add` is one instruction; false, with nothing done, where it is a call.
pub(crate) fn fused(task: impl Vectorized) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn with_fma(task: impl Vectorized) {
            task.run();
        }
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: the processor has AVX2 and FMA.
            unsafe { with_fma(task) };
            return true;
        }
    }
    if cfg!(target_arch = "aarch64") {
        task.run();
        return true;
    }
    false
}

/// Converts pictures from one pixel format to another at the same size.
pub(crate) struct Scaler(scaling::Context);

// SAFETY: a swscale context is plain memory behind one owner; nothing in it belongs to a thread.
unsafe impl Send for Scaler {}

impl Scaler {
    pub(crate) fn new(
        from: Pixel,
        to: Pixel,
        width: u32,
        height: u32,
        flags: scaling::Flags,
    ) -> Result<Self, Error> {
        scaling::Context::get(from, width, height, to, width, height, flags).map(Self)
    }

    /// Sets the YUV matrix (an `SWS_CS_*` number) and the range of both ends. False when neither end is YUV.
    pub(crate) fn set_color(&mut self, matrix: c_int, from_full_range: bool, to_full_range: bool) -> bool {
        // SAFETY: the context is live; the coefficient table is static. 1 << 16 is neutral contrast and saturation.
        unsafe {
            let table = ffi::sws_getCoefficients(matrix);
            let (from, to) = (from_full_range.into(), to_full_range.into());
            ffi::sws_setColorspaceDetails(self.0.as_mut_ptr(), table, from, table, to, 0, 1 << 16, 1 << 16)
                >= 0
        }
    }

    pub(crate) fn run(&mut self, from: &frame::Video, to: &mut frame::Video) -> Result<(), Error> {
        self.0.run(from, to)
    }
}

/// The motion vectors the decoder attached to a frame.
pub(crate) fn motion_vectors(frame: &frame::Video) -> Vec<ffi::AVMotionVector> {
    let Some(data) = frame.side_data(frame::side_data::Type::MotionVectors) else { return Vec::new() };
    let size = size_of::<ffi::AVMotionVector>();
    // SAFETY: side data of this type is an array of `AVMotionVector`, a plain struct of integers; each chunk has its size.
    data.data()
        .chunks_exact(size)
        .map(|bytes| unsafe { bytes.as_ptr().cast::<ffi::AVMotionVector>().read_unaligned() })
        .collect()
}

/// Creates a file and a muxer for it, chosen by the file's extension, which writes no version or date.
pub(crate) fn open_output(path: &Path) -> Result<Output, Error> {
    let url = c_url(&VideoFile::from(path))?;
    let mut context = ptr::null_mut();
    // SAFETY: FFmpeg allocates `context`; both strings are valid or null.
    check(unsafe {
        ffi::avformat_alloc_output_context2(&mut context, ptr::null(), ptr::null(), url.as_ptr())
    })?;
    // SAFETY: `context` is a valid muxer, freed together with its open file when `Output` drops.
    unsafe {
        let output = Output::wrap(context);
        check(ffi::avio_open(&mut (*context).pb, url.as_ptr(), ffi::AVIO_FLAG_WRITE as c_int))?;
        (*context).flags |= ffi::AVFMT_FLAG_BITEXACT as c_int;
        Ok(output)
    }
}

/// Writes everything out and closes the file, so that a full disk is an error and not silence.
pub(crate) fn close_output(mut output: Output) -> Result<(), Error> {
    output.write_trailer()?;
    // SAFETY: the context is live; `avio_closep` flushes, closes and sets `pb` to null, which the destructor accepts.
    check(unsafe { ffi::avio_closep(&mut (*output.as_mut_ptr()).pb) })
}
