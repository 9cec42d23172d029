"""Random views of grey images: one affine resampling, contrast and brightness, random erasing."""

import math

import torch
import torch.nn.functional as F

MEAN, STD = 0.2860, 0.3530  # of the Fashion-MNIST training pixels


def to_float(images):
    """[B,H,W] uint8 -> [B,1,H,W] float32 in 0..1."""
    return images.unsqueeze(1).float().div_(255)


def standardize(x):
    """What the encoder sees: mean 0 and variance 1 over the training pixels."""
    return (x - MEAN) / STD


def warp(x, *, scale_x, scale_y, angle, shift_x, shift_y):
    """Rotated, zoomed (scale < 1 shows a part only) and shifted copies, one bilinear resampling; outside is black.

    All parameters are [B]; shifts are parts of the side, angles in radians.
    """
    cos, sin = angle.cos(), angle.sin()
    # affine_grid's coordinates run from -1 to 1: a side is 2.
    theta = torch.stack([scale_x * cos, -scale_y * sin, 2 * shift_x, scale_x * sin, scale_y * cos, 2 * shift_y], dim=1)
    grid = F.affine_grid(theta.view(-1, 2, 3), x.shape, align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def jitter(x, contrast, brightness):
    """Contrast about the image's mean and an offset, each [B], clipped to 0..1."""
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    view = (-1, 1, 1, 1)
    return ((x - mean) * contrast.view(view) + mean + brightness.view(view)).clamp_(0, 1)


def erase(x, centre, size):
    """Blacks out one box per image: centre [B,2] in 0..1, size [B,2] as a part of the side (0: none)."""
    sides = []
    for axis in (0, 1):
        position = (torch.arange(x.shape[2 + axis]) + 0.5) / x.shape[2 + axis]
        sides.append((position - centre[:, axis : axis + 1]).abs() < size[:, axis : axis + 1] / 2)
    box = sides[0].unsqueeze(2) & sides[1].unsqueeze(1)
    return x.masked_fill(box.unsqueeze(1), 0)


def random_view(images, generator):
    """A random view of each image, [B,H,W] uint8 -> [B,1,H,W] float32, ready for the encoder.

    Crop area 0.3-1, aspect 3/4-4/3, crop anywhere and a shift of up to 0.1, rotation +-0.15 rad, horizontal flip;
    contrast +-0.5, brightness +-0.15; with probability 1/2 a black box of 0.2-0.5 of each side.
    """
    u = torch.rand(15, len(images), generator=generator)
    area = 0.3 + 0.7 * u[0]
    aspect = torch.exp((2 * u[1] - 1) * math.log(4 / 3))
    width, height = (area * aspect).sqrt().clamp_(max=1), (area / aspect).sqrt().clamp_(max=1)
    x = warp(
        to_float(images),
        scale_x=width * torch.where(u[2] < 0.5, -1.0, 1.0),
        scale_y=height,
        angle=0.15 * (2 * u[3] - 1),
        shift_x=(1 - width) * (u[4] - 0.5) + 0.1 * (2 * u[5] - 1),
        shift_y=(1 - height) * (u[6] - 0.5) + 0.1 * (2 * u[7] - 1),
    )
    x = jitter(x, contrast=1 + 0.5 * (2 * u[8] - 1), brightness=0.15 * (2 * u[9] - 1))
    size = torch.where(u[10] < 0.5, 0.2 + 0.3 * u[11:13], 0.0)
    return standardize(erase(x, centre=u[13:15].T, size=size.T))


def moved(images, generator):
    """Test images that moved: rotation +-20 degrees, shift +-0.13, zoom 1/1.3-1.3, contrast +-0.3; in 0..1.

    These are changes that random_view makes too, so they reward what the training taught.
    """
    u = 2 * torch.rand(5, len(images), generator=generator) - 1
    zoom = torch.exp(u[1] * math.log(1.3))
    x = warp(
        to_float(images),
        scale_x=zoom,
        scale_y=zoom,
        angle=u[0] * math.radians(20),
        shift_x=0.13 * u[2],
        shift_y=0.13 * u[3],
    )
    return jitter(x, contrast=1 + 0.3 * u[4], brightness=torch.zeros(len(images)))
