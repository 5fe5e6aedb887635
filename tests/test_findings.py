"""The numbers in the findings' sentences are those of the records in results/."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest

from isce import methods, paper, profiles, record, statistics, tables, verdicts
from isce.evaluations import Evaluation, find, unpack
from isce.statistics import ablation_test

ROOT = Path(__file__).resolve().parents[1]

# (file, "profile block backbone attack level", sentence). A level is `smaller` or `larger`, of the profile's two radii or steps. A field
# of a sentence is a method's accuracy in %: `{isce}`; `{isce:.0f}` rounded otherwise; `{isce:±}` with the standard deviation over
# seeds; `{isce:[]}` its interval alone; `{isce:each}` that of each seed; `{isce:2 of 200}` that of seed 2 on the first 200 images;
# `{isce>sce}` how many images stay right on I-SCE alone, with each seed, and `{isce>sce:p}` the sign test's p; `{isce-sce}` the points
# between them, `{isce-sce:.1f}` with a decimal; `{isce, deepfool_50@raw}` or `{isce, pgd_un_50, smaller}` of another attack or level. In
# differences `worst` is an attack's name, too.
CIFAR_RES, CIFAR_CNN = "full cifar10 resnet32", "full cifar10 cnn8"
MNIST_RES, MNIST_LENET = "full mnist resnet32", "cpu mnist lenet5"
MNIST_FIGURE_3, CIFAR_FIGURE_3 = "full mnist lenet5", "cpu cifar10 cnn8"
FINDINGS = [
    ("results/README.md", f"{MNIST_RES} pgd_un_50 smaller", "untargeted PGD-50 leaves {at} and {at, pgd_un_50, larger} % of AT (ε = 1 and 2), where it leaves {isce:0 of 1000} and {isce, pgd_un_50, larger:0 of 1000} % of I-SCE"),
    ("README.md", f"{MNIST_RES} autoattack smaller", "With three seeds SCE keeps {sce:each} % of the images, I-SCE {isce:each} %, normalisation alone {norm_only:each} % (n = 1,000; 500 with the third seed); MMC keeps {mmc} % with the first"),
    ("results/README.md", f"{MNIST_RES} autoattack smaller", "I-SCE is ahead of SCE with each seed, by {isce-sce} points, and differs from normalisation alone by {isce-norm_only}: the margin"),
    ("README.md", f"{MNIST_RES} pgd_un_50 smaller", "it is {isce-sce} points over SCE with the three seeds of ResNet-32 on MNIST"),
    ("results/README.md", f"{MNIST_RES} pgd_un_50 larger", "With ResNet-32 {isce:±} % are left on MNIST"),
    ("results/README.md", f"{CIFAR_RES} pgd_un_50 larger", "and {isce} % on CIFAR-10."),
    ("README.md", f"{CIFAR_RES} deepfool_50 larger", "under DeepFool it keeps {isce} % of the images, SCE {sce} %."),
    ("README.md", f"{CIFAR_RES} deepfool_50@raw larger", "(the decisions are identical), and it keeps {isce} %."),
    ("README.md", f"{CIFAR_RES} autoattack larger", "Under AutoAttack it keeps {isce} %, as SCE does; adversarial training (AT) keeps {at} %. MMC keeps more than I-SCE under PGD ({mmc, pgd_un_50} % against {isce, pgd_un_50} %), but nothing under AutoAttack."),
    ("README.md", f"{CIFAR_RES} autoattack larger", "Under AutoAttack it keeps {sce} %, as SCE does"),
    ("results/README.md", f"{MNIST_LENET} pgd_un_50 larger", "at the larger of our radii little is left. Untargeted PGD-50 leaves {isce:±} % of it with LeNet-5"),
    ("results/README.md", f"{CIFAR_CNN} pgd_un_50 larger", "and {isce:±} % with the 8-layer CNN (60 epochs)."),
    ("results/README.md", f"{MNIST_LENET} deepfool_50 larger", "It changes little: with LeNet-5 (MNIST, ε = 2) {isce, deepfool_50@inference:±} % are left instead of {isce:±}"),
    ("results/README.md", f"{MNIST_RES} deepfool_50 larger", ", with ResNet-32 there (seed 0) {isce, deepfool_50@inference:0 of 1000} instead of {isce:0 of 1000}"),
    ("results/README.md", f"{CIFAR_RES} deepfool_50 larger", ", on CIFAR-10 (ε = 0.5) {isce, deepfool_50@inference} instead of {isce}"),
    ("results/README.md", f"{MNIST_LENET} autoattack larger", "ArcFace with m = 0.1 has not met AutoAttack there; at ε = 2 it keeps {arcface_isce:each} % where SCE keeps {sce:each}."),
    ("results/README.md", f"{CIFAR_RES} deepfool_50 larger", "ArcFace's falls as I-SCE's does, from {arcface} to {arcface, deepfool_50@raw}; those of MMC ({mmc, deepfool_50@raw}), label smoothing ({label_smoothing, deepfool_50@raw}), L-GM ({lgm, deepfool_50@raw}) and center loss ({center, deepfool_50@raw}) stay, as their outputs are not normalised."),
    ("results/README.md", f"{MNIST_RES} apgd_dlr smaller", "APGD on the DLR objective, which no scale of the logits changes, leaves {isce} % of I-SCE, {sce} of SCE, {norm_only} of normalisation alone, {mmc} of MMC and {label_smoothing} of label smoothing at ε = 1 on MNIST (ResNet-32, seed 0)"),
    ("results/README.md", f"{CIFAR_RES} apgd_dlr smaller", "{isce}, {sce}, {norm_only}, {mmc} and {label_smoothing} at ε = 0.25 on CIFAR-10: of MMC and label smoothing less than PGD-50 does, on MNIST more of the others."),
    ("README.md", f"{CIFAR_RES} pgd_un_50 smaller", "at an unknown radius), {isce-sce} with ResNet-32 (one seed) and "),
    ("README.md", f"{CIFAR_CNN} pgd_un_50 smaller", "and {isce-sce} with the three seeds of the 8-layer CNN on CIFAR-10 (ε = 0.25)"),
    ("results/README.md", f"{MNIST_RES} simba smaller", "The first step's gap between I-SCE and SCE is {isce-sce} points on MNIST"),
    ("results/README.md", f"{CIFAR_RES} simba smaller", "points on MNIST, {isce-sce} on CIFAR-10"),
    ("README.md", f"{MNIST_RES} simba smaller", "On the logits before their normalisation (ResNet-32, seed 0) it leaves {isce, simba@raw} % of I-SCE on MNIST instead of {isce:0 of 1000} (SCE: {sce:0 of 1000})"),
    ("README.md", f"{CIFAR_RES} simba smaller", ", and {isce, simba@raw} % on CIFAR-10 instead of {isce} (SCE: {sce}; steps of 0.2 and 0.1, n = 1,000)"),
    ("results/README.md", f"{MNIST_RES} simba smaller", "On the logits before their normalisation (seed 0, n = 1,000) it leaves {isce, simba@raw} and {isce, simba@raw, larger} % of I-SCE on MNIST, where on the outputs {isce:0 of 1000} and {isce, simba, larger:0 of 1000} % are left and of SCE {sce:0 of 1000} and {sce, simba, larger:0 of 1000} %; {norm_only, simba@raw} and {norm_only, simba@raw, larger} % of normalisation alone"),
    ("results/README.md", f"{CIFAR_RES} simba smaller", "on CIFAR-10 {isce, simba@raw} and {isce, simba@raw, larger} % of I-SCE, {norm_only, simba@raw} and {norm_only, simba@raw, larger} % of normalisation alone"),
    ("README.md", f"{CIFAR_CNN} clean larger", "and, after 60 epochs on CIFAR-10, the 8-layer CNN {sce-at} points and"),
    ("README.md", f"{CIFAR_RES} clean larger", "and ResNet-32 {sce-at} (the paper: a noticeable loss;"),
    ("results/README.md", "cpu cifar10 cnn8 worst smaller", "17.5 ± 1.9 % on I-SCE, {isce-sce:.1f} points more"),
    ("results/README.md", f"{MNIST_RES} autoattack larger", "not one of 1,000 images on any network but adversarial training's: on MNIST {at} % (seed 0; untargeted PGD-50 leaves {at, pgd_un_50} %); on CIFAR-10,"),
    ("results/README.md", f"{CIFAR_RES} autoattack larger", "under AutoAttack, at the larger radius, no image is left of I-SCE on the ResNet-32s of Tables 1 to 4, and none of seven others; AT keeps {at} % on CIFAR-10, half on MNIST."),
    ("results/README.md", f"{CIFAR_RES} autoattack larger", "on CIFAR-10, at {at, clean} % clean, {at} % (untargeted PGD-50 leaves {at, pgd_un_50} %)."),
    ("results/README.md", f"{CIFAR_RES} autoattack smaller", "* ResNet-32, CIFAR-10, ε = 0.25 (seed 0, n = 1,000): {isce} % of I-SCE, {sce} of SCE, {label_smoothing} of label smoothing, {center} of center loss, {lgm} of L-GM, {arcface} of ArcFace and {mmc} of MMC (of which PGD-50 leaves {mmc, pgd_un_50} %); of the first 200 images {norm_only} % of normalisation alone, of the first 100 {at} % of AT."),
    ("README.md", f"{CIFAR_RES} autoattack smaller", "with ResNet-32 there it keeps {isce} %, SCE {sce}, and of the other methods tested only AT keeps more than {lgm}"),
    ("README.md", f"{MNIST_LENET} autoattack larger", "only Random keeps anything to speak of, {random:.0f} % on LeNet-5"),
    ("README.md", f"{CIFAR_CNN} autoattack larger", "on LeNet-5 ({random} % on the 8-layer CNN, nothing on ResNet-32)."),
    ("README.md", f"{MNIST_LENET} autoattack smaller", "With LeNet-5 I-SCE keeps {sce-isce:.1f} points *less* than SCE (n = 1,000);"),
    ("results/README.md", f"{MNIST_LENET} autoattack smaller", "At ε = 1 AutoAttack leaves {arcface_unit:each} % of it (LeNet-5, n = 1,000): more than of SCE with every seed ({arcface_unit>sce} images survive on ArcFace alone and {sce>arcface_unit} on SCE alone; p = {arcface_unit>sce:p}), and than of I-SCE ({isce:each} %)."),
    ("results/README.md", f"{MNIST_LENET} autoattack smaller", "LeNet-5, MNIST, ε = 1 (n = 1,000): {isce:each} % of I-SCE, {sce:each} % of SCE, {norm_only:each} % of normalisation alone. Here I-SCE is behind with each seed: {isce>sce} images survive on I-SCE alone and {sce>isce} on SCE alone (p = {isce>sce:p})"),
    ("results/README.md", f"{MNIST_LENET} deepfool_50 larger", "MNIST as we read it; at ours it keeps {at:.0f} % and more"),
    ("results/README.md", f"{MNIST_LENET} clean larger", "Clean accuracy of SCE, seed 0: LeNet-5 {sce} %"),
    ("results/README.md", f"{MNIST_RES} clean larger", "and ResNet-32 {sce} % of MNIST"),
    ("results/README.md", f"{CIFAR_CNN} clean larger", "the 8-layer CNN {sce:0 of 10000} % after 60 epochs"),
    ("results/README.md", f"{CIFAR_RES} clean larger", "ResNet-32 {sce} %, half a point under the 91 %"),
    ("results/README.md", f"{MNIST_LENET} deepfool_50 larger", "LeNet-5, MNIST, ε = 2: I-SCE {isce}, SCE {sce:.0f}; on the raw logits I-SCE {isce, deepfool_50@raw:.0f}"),
    ("results/README.md", f"{CIFAR_RES} deepfool_50 larger", "ε = 0.5: {isce} against {sce}; on the raw logits {isce, deepfool_50@raw}. Of the others AT has {at}, MMC {mmc}, Random {random}, label smoothing {label_smoothing}, L-GM {lgm}, ArcFace {arcface} and center loss {center}."),
    ("results/README.md", f"{MNIST_RES} deepfool_50 larger", "ε = 2: {isce:±} against {sce:±}; on the raw logits {isce, deepfool_50@raw:±}. At ε = 1 more of it stays: {isce, deepfool_50, smaller:±} against {sce, deepfool_50, smaller:±}, and {isce, deepfool_50@raw, smaller:±}"),
    ("results/README.md", "cpu mnist resnet32 deepfool_50 smaller", "(three seeds) {isce:±} against {sce:±}, and {isce, deepfool_50@raw:±}"),
    ("results/README.md", f"{CIFAR_CNN} deepfool_50 larger", "(three seeds), ε = 0.5: {isce:each} against {sce:each}; on the raw logits {isce, deepfool_50@raw:each}. After 5 epochs"),
    ("results/README.md", "cpu cifar10 cnn8 deepfool_50 larger", "After 5 epochs (three seeds) {isce:±} against {sce:±}, and {isce, deepfool_50@raw:±}"),
    ("results/README.md", f"{CIFAR_CNN} deepfool_50 larger", "Random has {random}, AT {at}, MMC {mmc}, ArcFace {arcface} ({arcface, deepfool_50@raw} on its raw logits), label smoothing {label_smoothing}, L-GM {lgm} and center loss {center}"),
    ("results/README.md", f"{MNIST_LENET} deepfool_50 larger", "loses it in the same way: LeNet-5 {norm_only} and {norm_only, deepfool_50@raw:.0f} % (MNIST, ε = 2; outputs and raw logits; I-SCE: {isce} and {isce, deepfool_50@raw:.0f})"),
    ("results/README.md", f"{CIFAR_CNN} deepfool_50 larger", "the 8-layer CNN {norm_only:each} and, on raw logits, {norm_only, deepfool_50@raw:each} % after 60 epochs (three seeds)"),
    ("results/README.md", "cpu cifar10 cnn8 deepfool_50 larger", "{norm_only:.0f} and {norm_only, deepfool_50@raw} % after 5"),
    ("results/README.md", f"{MNIST_RES} deepfool_50 larger", "ResNet-32 {norm_only:±} and {norm_only, deepfool_50@raw:±} % (MNIST)"),
    ("results/README.md", f"{CIFAR_RES} deepfool_50 larger", "{norm_only} and {norm_only, deepfool_50@raw} % (CIFAR-10)"),
    ("results/README.md", f"{MNIST_RES} pgd_un_50 smaller", "with three seeds normalisation alone has {norm_only:each} %, I-SCE {isce:each} %"),
    ("results/README.md", f"{CIFAR_RES} pgd_un_50 smaller", "CIFAR-10, ε = 0.25, {norm_only} against {isce} %"),
    ("results/README.md", f"{MNIST_LENET} deepfool_50 larger", "a *subtracted* margin does the same ({subtracted_margin}, {subtracted_margin, deepfool_50@raw:.0f} %), and so does ArcFace, which normalises too ({arcface:.0f}, {arcface, deepfool_50@raw} %)"),
    ("results/README.md", f"{MNIST_RES} pgd_un_50 smaller", "with three seeds untargeted PGD-50 leaves {isce:each} % of I-SCE, {sce:each} % of SCE, {norm_only:each} % of normalisation alone; MMC has {mmc} and label smoothing {label_smoothing} % (seed 0), AT has {at}, and {at, pgd_un_50, larger} at ε = 2 (seed 0). The paper claims 63 % over SCE on MNIST, at an unknown radius; in points it is {isce-sce} here"),
    ("results/README.md", f"{CIFAR_RES} pgd_un_50 smaller", "ε = 0.25: I-SCE {isce} %, SCE {sce}, normalisation alone {norm_only}, label smoothing {label_smoothing}, MMC {mmc}, center loss {center}, L-GM {lgm}, ArcFace {arcface}, AT {at};"),
    ("results/README.md", "cpu mnist resnet32 pgd_un_50 smaller", "I-SCE has {isce:±}, SCE {sce:±} %: the seed moves both alike, and between them lie {isce-sce:.1f} points"),
    ("results/README.md", f"{MNIST_LENET} deepfool_50 larger", "| ArcFace, s = 30, m = 0.5 | {arcface:each} | {arcface, deepfool_50@raw:each} | {arcface, pgd_un_50:each} | {arcface, autoattack:each} |"),
    ("results/README.md", f"{MNIST_LENET} deepfool_50 larger", "| I-SCE at logits of length 20 | {isce_temperature:each} | {isce_temperature, deepfool_50@raw:each} | {isce_temperature, pgd_un_50:each} | {isce_temperature, autoattack:each} |"),
    ("results/README.md", f"{MNIST_LENET} deepfool_50 larger", "| I-SCE | {isce:each} | {isce, deepfool_50@raw:each} | {isce, pgd_un_50:each} | {isce, autoattack:each} |"),
    ("results/README.md", f"{MNIST_LENET} deepfool_50 larger", "| ArcFace, s = 1, m = 0.1 | {arcface_isce:each} | {arcface_isce, deepfool_50@raw:each} | {arcface_isce, pgd_un_50:each} | {arcface_isce, autoattack:each} |"),
    ("results/README.md", f"{MNIST_LENET} deepfool_50 larger", "| ArcFace, s = 1, m = 0.5 | {arcface_unit:each} | {arcface_unit, deepfool_50@raw:each} | {arcface_unit, pgd_un_50:each} | {arcface_unit, autoattack:each} |"),
    ("results/README.md", f"{MNIST_LENET} pgd_tar_50 larger", "targeted PGD-50 leaves I-SCE {isce:±} % and SCE {sce:±} %, the untargeted one {isce, pgd_un_50:±} and {sce, pgd_un_50:±} %"),
    ("results/README.md", f"{CIFAR_CNN} pgd_un_50 smaller", "I-SCE {isce:0 of 1000} and {isce, pgd_un_50, larger:0 of 1000} %, SCE {sce:0 of 1000} and {sce, pgd_un_50, larger:0 of 1000} %, MMC {mmc} and {mmc, pgd_un_50, larger} %, label smoothing {label_smoothing} and {label_smoothing, pgd_un_50, larger} %, center loss {center} and {center, pgd_un_50, larger} %, L-GM {lgm} and {lgm, pgd_un_50, larger} %, ArcFace {arcface} and {arcface, pgd_un_50, larger} %, AT {at} and {at, pgd_un_50, larger} %; with seeds 1 and 2 I-SCE {isce:1 of 1000} and {isce, pgd_un_50, larger:1 of 1000}, {isce:2 of 1000} and {isce, pgd_un_50, larger:2 of 1000} %, SCE {sce:1 of 1000} and {sce, pgd_un_50, larger:1 of 1000}, {sce:2 of 1000} and {sce, pgd_un_50, larger:2 of 1000} %; after 5 epochs"),
    ("results/README.md", "cpu cifar10 cnn8 pgd_un_50 larger", "after 5 epochs at ε = 0.5 I-SCE {isce:±} and SCE {sce:±} %"),
    ("results/README.md", f"{MNIST_RES} simba smaller", "| ResNet-32, MNIST, 0.2 | {sce:±} | {label_smoothing} | {center} | {lgm} | {arcface} | {mmc} | {random} | {at} | {isce:±} | {norm_only:±} |"),
    ("results/README.md", f"{MNIST_RES} simba larger", "| ResNet-32, MNIST, 0.4 | {sce:±} | {label_smoothing} | {center} | {lgm} | {arcface} | {mmc} | {random} | {at} | {isce:±} | {norm_only:±} |"),
    ("results/README.md", f"{CIFAR_RES} simba smaller", "| ResNet-32, CIFAR-10, 0.1 | {sce} | {label_smoothing} | {center} | {lgm} | {arcface} | {mmc} | {random} | {at} | {isce} | {norm_only} |"),
    ("results/README.md", f"{CIFAR_RES} simba larger", "| ResNet-32, CIFAR-10, 0.2 | {sce} | {label_smoothing} | {center} | {lgm} | {arcface} | {mmc} | {random} | {at} | {isce} | {norm_only} |"),
    ("results/README.md", f"{MNIST_LENET} autoattack larger", "adversarial training, within balls of 1.5, {at:±} %, I-SCE and SCE {isce}. MMC and label smoothing, at {mmc, pgd_un_50:.0f} and {label_smoothing, pgd_un_50:.0f} % under the paper's PGD-50, keep {mmc} and {label_smoothing} %"),
    ("results/README.md", "cpu cifar10 cnn8 autoattack larger", "at {at, clean} % clean, {at} %; I-SCE and SCE {isce} %"),
    ("results/README.md", "cpu mnist resnet32 autoattack larger", "After 2 epochs on MNIST AutoAttack leaves {at} % of it"),
    ("results/README.md", f"{MNIST_RES} autoattack smaller", "{isce:each} % of I-SCE, {sce:each} % of SCE, {norm_only:each} % of normalisation alone. {isce>sce} images survive on I-SCE alone and {sce>isce} on SCE alone (sign test, p = {isce>sce:p}); {norm_only>sce} on normalisation alone and {sce>norm_only} on SCE alone (p = {norm_only>sce:p})"),
    ("results/README.md", f"{MNIST_RES} autoattack smaller", "{norm_only>isce} images survive on normalisation alone and {isce>norm_only} on I-SCE alone (p = {norm_only>isce:p}: with seed 0 for normalisation, with seed 1 for I-SCE, with seed 2 for neither)"),
    ("results/README.md", f"{MNIST_RES} autoattack smaller", "Of the others, seed 0 alone: MMC {mmc} %, label smoothing {label_smoothing} %, L-GM {lgm} % (n = 1,000), ArcFace {arcface} and center loss {center} % (n = 500), AT {at} % (n = 50): PGD-50 leaves MMC {mmc, pgd_un_50} and label smoothing {label_smoothing, pgd_un_50} %. {mmc>isce} images survive on MMC alone and {isce>mmc} on I-SCE alone (p = {mmc>isce:p}); I-SCE is ahead of label smoothing ({isce>label_smoothing} images to {label_smoothing>isce}, p = {isce>label_smoothing:p}), of ArcFace ({isce>arcface} to {arcface>isce}, p = {isce>arcface:p}) and of L-GM ({isce>lgm} to {lgm>isce}, p = {isce>lgm:p})"),
    ("results/README.md", f"{MNIST_RES} autoattack smaller", "of the first 200 images it leaves {isce, autoattack@raw:2 of 200} %, on the outputs {isce:2 of 200} % (seed 2)"),
    ("results/README.md", f"{CIFAR_CNN} autoattack smaller", "{sce:each} % of SCE, {isce:each} % of I-SCE and {norm_only:each} % of normalisation alone. {isce>sce} images survive on I-SCE alone and {sce>isce} on SCE alone (sign test, p = {isce>sce:p}), {norm_only>isce} on normalisation alone and {isce>norm_only} on I-SCE alone (p = {norm_only>isce:p}), {norm_only>sce} on normalisation alone and {sce>norm_only} on SCE alone (p = {norm_only>sce:p}). ArcFace (seed 0) keeps {arcface} % {arcface:[]}."),
    ("README.md", f"{CIFAR_CNN} autoattack smaller", "with the 8-layer CNN on CIFAR-10 (ε = 0.25, three seeds) it keeps {isce:each} %, SCE {sce:each}, normalisation alone {norm_only:each};"),
    ("results/README.md", f"{MNIST_LENET} autoattack larger", "On MNIST (LeNet-5, ε = 2) PGD-50 leaves {random, pgd_un_50:±} %, through the mean of 20 draws (EOT, n = 1,000) {random, pgd_un_50@eot20:±} %, AutoAttack {random:±} %"),
    ("results/README.md", f"{CIFAR_CNN} autoattack larger", "on CIFAR-10 (8-layer CNN, 60 epochs, ε = 0.5) PGD-50 {random, pgd_un_50} %, AutoAttack {random} % (EOT has not been run there)"),
    ("results/README.md", f"{MNIST_RES} autoattack larger", "With ResNet-32 PGD-50 leaves {random, pgd_un_50} and AutoAttack {random} % on MNIST (ε = 2)"),
    ("results/README.md", f"{CIFAR_RES} autoattack larger", "{random, pgd_un_50} and {random} % on CIFAR-10 (ε = 0.5)"),
    ("README.md", f"{MNIST_LENET} pgd_un_50 larger", "with LeNet-5 the seeds disagree at ε = 1, and it is {isce-sce} points at ε = 2."),
    ("results/README.md", f"{CIFAR_RES} pgd_tar_50 smaller", "targeted, I-SCE {isce} and SCE {sce} %."),
    ("results/README.md", f"{MNIST_LENET} deepfool_50 larger", "DeepFool-50, ε = 2 | {sce_normalized:each} | {sce:each} | {isce:each} |"),
    ("results/README.md", f"{MNIST_LENET} deepfool_50 larger", "untargeted PGD-50, ε = 2 | {sce_normalized, pgd_un_50:each} | {sce, pgd_un_50:each} | {isce, pgd_un_50:each} |"),
    ("results/README.md", f"{MNIST_RES} deepfool_50 smaller", "| ResNet-32, MNIST (seed 0, n = 1,000): DeepFool-50, ε = 1 | {sce_normalized:0 of 1000} | {sce:0 of 1000} | {isce:0 of 1000} | | the same: untargeted PGD-50, ε = 1 | {sce_normalized, pgd_un_50:0 of 1000} | {sce, pgd_un_50:0 of 1000} | {isce, pgd_un_50:0 of 1000} |"),
    ("results/README.md", f"{CIFAR_RES} deepfool_50 larger", "| ResNet-32, CIFAR-10 (seed 0, n = 1,000): DeepFool-50, ε = 0.5 | {sce_normalized} | {sce} | {isce} | | the same: untargeted PGD-50, ε = 0.25 | {sce_normalized, pgd_un_50, smaller} | {sce, pgd_un_50, smaller} | {isce, pgd_un_50, smaller} |"),
    ("results/README.md", f"{MNIST_LENET} as_coded_df_10 smaller", "it leaves {isce:0 of 1000} % of I-SCE after 10 iterations and {isce, as_coded_df_50:0 of 1000} % after 50, {at:0 of 1000} and {at, as_coded_df_50:0 of 1000} % of AT, {sce:0 of 1000} and {sce, as_coded_df_50:0 of 1000} % of SCE; and {sce_normalized:0 of 1000} and {sce_normalized, as_coded_df_50:0 of 1000} % of that very SCE network once its logits are normalised."),
    ("README.md", f"{MNIST_LENET} as_coded_df_10 smaller", "it leaves {sce:0 of 1000} % of SCE, {isce:0 of 1000} % of I-SCE, and {sce_normalized:0 of 1000} % of that SCE network once its logits are divided by their norm (LeNet-5, MNIST, seed 0, n = 1,000)"),
    ("results/README.md", f"{MNIST_LENET} as_coded_df_10 smaller", "Normalisation alone keeps {norm_only:0 of 1000} and {norm_only, as_coded_df_50:0 of 1000} %: again no part of the margin that shows."),
    ("results/README.md", f"{MNIST_LENET} as_coded_df_10 smaller", "and does not fit: {random:0 of 1000} and {random, as_coded_df_50:0 of 1000} % here, 71.46 and 42.60 % there."),
    ("results/README.md", f"{MNIST_RES} pgd_un_50 smaller", "ResNet-32 (MNIST, seed 0, ε = 1), ArcFace at s = 1 with m = 0.5: untargeted PGD-50 leaves {arcface_unit:0 of 1000} % of it, {arcface:0 of 1000} of ArcFace at 30 and {isce:0 of 1000} of I-SCE, DeepFool-50 {arcface_unit, deepfool_50:0 of 1000}, {arcface, deepfool_50:0 of 1000} and {isce, deepfool_50:0 of 1000} %, on raw logits {arcface_unit, deepfool_50@raw:0 of 1000} and {isce, deepfool_50@raw:0 of 1000} %; AutoAttack at ε = 2 nothing of any."),
    ("results/README.md", f"{CIFAR_RES} deepfool_50 larger", "On ResNet-32 (CIFAR-10, ε = 0.5) MMC keeps {mmc} %, Random {random} and label smoothing {label_smoothing}, I-SCE {isce}."),
    ("results/README.md", f"{MNIST_LENET} as_coded_df_10 smaller", "after 10 iterations I-SCE {isce:0 of 1000} and {isce, as_coded_df_10, larger:0 of 1000}, AT {at:0 of 1000} and {at, as_coded_df_10, larger:0 of 1000} %)"),
    ("results/README.md", f"{MNIST_LENET} deepfool_50 smaller", "DeepFool-50: AT {at} and {at, deepfool_50, larger} %, n = 2,000)"),
    ("results/README.md", f"{CIFAR_CNN} autoattack larger", "adversarial training, after 60 epochs at {at, clean} % clean, {at} % (untargeted PGD-50 leaves {at, pgd_un_50} %)"),
    ("results/README.md", f"{CIFAR_RES} pgd_un_50 smaller", "on CIFAR-10 {at} and {at, pgd_un_50, larger} % of AT and {isce} and {isce, pgd_un_50, larger} % of I-SCE (ε = 0.25 and 0.5); with the 8-layer CNN"),
    ("results/README.md", f"{CIFAR_CNN} pgd_un_50 smaller", "with the 8-layer CNN on CIFAR-10 {at} and {at, pgd_un_50, larger} % of AT and {isce:0 of 1000} and {isce, pgd_un_50, larger:0 of 1000} % of I-SCE (seed 0, ε = 0.25 and 0.5; Table 6, which the claim does not rest on)"),
    ("results/README.md", f"{CIFAR_RES} pgd_un_50 smaller", "The same PGD-50 on the logits before their normalisation leaves less: on CIFAR-10 (ε = 0.25, seed 0) {isce, pgd_un_50@raw} % of I-SCE's ResNet-32 instead of {isce} (SCE: {sce})"),
    ("results/README.md", f"{MNIST_LENET} pgd_un_50 larger", "with LeNet-5 on MNIST (ε = 2, three seeds) {isce, pgd_un_50@raw:each} % instead of {isce:each} (SCE: {sce:each})."),
    ("README.md", f"{CIFAR_RES} pgd_un_50 smaller", "On the logits before their normalisation the same PGD-50 leaves {isce, pgd_un_50@raw} % of I-SCE's ResNet-32 on CIFAR-10 instead of {isce} (SCE: {sce}); [on MNIST](results/README.md#pgd-a-gap-that-is-the-normalisations-and-not-the-largest) most of its gap stays (two seeds)."),
    ("results/README.md", f"{MNIST_LENET} pgd_un_50 smaller", "(at ε = 1 not with each: PGD-50 with seed 1 leaves {arcface, pgd_un_50, smaller:1 of 2000} % of ArcFace at 30 and {isce_temperature, pgd_un_50, smaller:1 of 2000} of I-SCE at length 20):"),
    ("results/README.md", f"{MNIST_RES} pgd_un_50 smaller", "With ResNet-32 on MNIST (ε = 1) most of the gap stays: {isce, pgd_un_50@raw:0 of 1000} % are left instead of {isce:0 of 1000} with seed 0 (SCE: {sce:0 of 1000}), and of the first 500 images {isce, pgd_un_50@raw:2 of 500} instead of {isce:2 of 500} with seed 2 (SCE: {sce:2 of 500})."),
    ("results/README.md", f"{CIFAR_CNN} pgd_un_50 smaller", "and {isce, pgd_un_50@raw:each} % of its 8-layer CNN (three seeds) instead of {isce:each} (SCE: {sce:each});"),
    ("results/README.md", f"{CIFAR_CNN} deepfool_50 larger", ", and with the 8-layer CNN (three seeds) {isce, deepfool_50@inference:each} instead of {isce:each} %."),
    ("results/README.md", f"{CIFAR_RES} pgd_un_50 smaller", "Of ArcFace {arcface, pgd_margin_50} % are left by PGD on the margin (the cross-entropy: {arcface}), of center loss {center, pgd_margin_50} ({center}), of AT {at, pgd_margin_50} ({at}); outputs times 20 leave {isce, pgd_un_50@x20} % of I-SCE ({isce}), and points that mislead the SCE network {isce, pgd_un_50@transfer}."),
    ("results/README.md", f"{CIFAR_RES} apgd_ce smaller", "APGD on the cross-entropy leaves {isce, apgd_ce} % of I-SCE there, {sce, apgd_ce} of SCE, {label_smoothing, apgd_ce} of label smoothing, {mmc, apgd_ce} of MMC and {at, apgd_ce} of AT; PGD-50 on ArcFace's raw logits {arcface, pgd_un_50@raw} % ({arcface, pgd_un_50} on its outputs)."),
    ("results/README.md", f"{MNIST_LENET} fab smaller", "One of its four, FAB, is weak on ArcFace's normalised outputs (it alone leaves {arcface_unit, fab:0 of 1000} % with seed 0, of SCE {sce, fab:0 of 1000}); AutoAttack on its raw logits has not been run."),
    ("README.md", f"{MNIST_RES} pgd_un_50 smaller", "on one of four networks (ResNet-32 on MNIST, by {isce-sce, autoattack, smaller} points with its three seeds, where PGD-50 has it ahead by {isce-sce}), and behind on another;"),
]  # fmt: skip

# (file, "profile block backbone", sentence) of Figure 3. A field is an attack and what is asked of it, in %: `{pgd_un_50 grid}` the
# lowest and the highest of the grid; `{pgd_un_50 seeds}` those of the seeds of one setting; `{pgd_un_50 p}` the F test's p, `{pgd_un_50 least}` the grid's least significant standard deviation, `{pgd_un_50 sd}` its own; `{pgd_un_50
# best}` the setting that is best on the validation images; `{pgd_un_50 test}` its accuracy on test images and that of s = 1, m = 0.1;
# `{pgd_un_50 sce}` that of SCE on the validation images.
FIGURE_3 = [
    ("results/README.md", MNIST_FIGURE_3, "PGD-50 leaves {pgd_un_50 grid} % over 25 settings, all of seed 0, and {pgd_un_50 seeds} % over ten seeds of s = 1, m = 0.1; DeepFool-50 {deepfool_50 grid} and {deepfool_50 seeds} %"),
    ("results/README.md", MNIST_FIGURE_3, "No F test finds the grid wider than the nine other seeds (p = {pgd_un_50 p} and {deepfool_50 p}; significant would be a standard deviation from 1.8 times the seeds' on, {pgd_un_50 least} and {deepfool_50 least} points; the grid has {pgd_un_50 sd} and {deepfool_50 sd})."),
    ("results/README.md", MNIST_FIGURE_3, "The mean of the ten seeds lies above the grid's ({pgd_un_50 means} % under PGD-50; the grid's own s = 1, m = 0.1 has {pgd_un_50 own})"),
    ("results/README.md", "cpu mnist lenet5", "the F tests say the same (p = {pgd_un_50 p} and {deepfool_50 p}), but the best on the validation images ({pgd_un_50 best}) is no better on 1,000 test images ({pgd_un_50 test} %)."),
    ("results/README.md", MNIST_FIGURE_3, "({pgd_un_50 best}) is better than that of s = 1, m = 0.1 on 10,000 test images, too ({pgd_un_50 test} %)"),
    ("results/README.md", CIFAR_FIGURE_3, "PGD-50 leaves {pgd_un_50 grid} % over the 25 settings and {pgd_un_50 seeds} % over the ten seeds, DeepFool-50 {deepfool_50 grid} and {deepfool_50 seeds} % (p = {pgd_un_50 p} and {deepfool_50 p}). SCE has {pgd_un_50 sce} and {deepfool_50 sce} %"),
    ("results/README.md", CIFAR_FIGURE_3, "({pgd_un_50 best}) is better than that of s = 1, m = 0.1 on 1,000 test images, too ({pgd_un_50 test} %)"),
]  # fmt: skip

# (file, "profile block", sentence) of Figure 4. A field is a method and what of its 3-D network: `clean` and `nearest_mean` in %, the
# silhouettes `euclidean` and `cosine`, `n` images, or `raw`, DeepFool-50 on raw logits at both radii (`raw larger`: at that alone).
FIGURE_4 = [
    ("results/README.md", "full mnist", "MNIST (ResNet-32, 20 epochs, {isce n} test images): right on {isce clean} % with I-SCE and on {sce clean} % with SCE"),
    ("results/README.md", "full mnist", "the silhouette by angle is {isce cosine} with I-SCE and {sce cosine} with SCE, by Euclidean distance, rays that begin at one point being near each other there, {isce euclidean} and {sce euclidean}; the nearest class mean is right on {isce nearest_mean} and {sce nearest_mean} %"),
    ("results/README.md", "full mnist", "raw logits leaves {isce raw} % of I-SCE (ε = 1 and 2), {sce raw} % of SCE"),
    ("results/README.md", "cpu mnist", "nearly every 4 is taken for a 9. With I-SCE the network is right on {isce clean} % of all test images, with SCE on {sce clean} %; the nearest class mean on {isce nearest_mean} and {sce nearest_mean} %"),
    ("results/README.md", "cpu mnist", "(0.88 to {mmc euclidean}; SCE {sce euclidean}, I-SCE {isce euclidean}). On raw logits DeepFool-50 leaves {isce raw} % of I-SCE, {sce raw} % of SCE; of the others at ε = 2 five keep more than I-SCE (MMC {mmc raw larger}, label smoothing {label_smoothing raw larger}, center loss {center raw larger}, Random {random raw larger}, L-GM {lgm raw larger}; ArcFace {arcface raw larger} %)"),
    ("results/README.md", "cpu cifar10", "by angle. On raw logits DeepFool-50 leaves {isce raw} % of I-SCE, {sce raw} % of SCE"),
    ("results/README.md", "cpu cifar10", "(8-layer CNN, 5 epochs, {isce n} test images): right on {isce clean} and {sce clean} %; the nearest class mean on {isce nearest_mean} and {sce nearest_mean} %; silhouettes {isce euclidean} and {sce euclidean} by Euclidean distance, {isce cosine} and {sce cosine} by angle"),
    ("results/README.md", "cpu cifar10", "does not train there with three ({arcface clean} %)"),
]  # fmt: skip


def listed(words: list[str]) -> str:
    """a; a and b; a, b and c."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def paired(ours: dict[int, np.ndarray], theirs: dict[int, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Outcomes by seed -> of each seed that both have, those of the images that both have."""
    both = ((ours[seed], theirs[seed]) for seed in sorted(set(ours) & set(theirs)))
    return [(a[: len(b)], b[: len(a)]) for a, b in both]


def fill(cell: str, sentence: str) -> str:
    """The sentence with the records' numbers in the place of its fields."""
    name, block, backbone, *usual = cell.split()
    profile = profiles.load(name)

    def runs(method: str, attack: str, level: str) -> tuple[list[Evaluation], int]:
        asked = profile.over_seeds(block, backbone, method, attack)
        if level == "smaller" and attack in profile.optional:
            asked = tables.at_smaller(profile, block, backbone, method, attack)
        assert any(map(find, asked)), f"no record of {cell}: {method} {attack} {level}"
        return asked, {"smaller": 0, "larger": -1}[level]

    def outcomes(method: str, attack: str, level: str) -> dict[int, np.ndarray]:
        if attack == "worst":
            eps = profile.eps[block][{"smaller": 0, "larger": -1}[level]]
            return tables.worst_outcomes(profile, block, backbone, eps)([method])[0]
        return tables.outcomes_of(*runs(method, attack, level))

    def number(field: re.Match[str]) -> str:
        names, _, form = field[1].partition(":")
        method, *other = (part.strip() for part in names.split(","))
        attack, level = other + usual[len(other) :]
        if ">" in method:
            ours, theirs = (outcomes(one, attack, level) for one in method.split(">"))
            pairs = paired(ours, theirs)
            if form == "p":
                return listed([f"{statistics.sign_flip(a.astype(int) - b):.2g}" for a, b in pairs])
            return listed([str((a & ~b).sum()) for a, b in pairs])
        if "-" in method:
            ours, theirs = (outcomes(one, attack, level) for one in method.split("-"))
            points = [round(100 * (a.mean() - b.mean()), 6) for a, b in paired(ours, theirs)]
            return listed([format(p, form) if form else str(math.floor(p + 0.5)) for p in points])
        if form == "each":
            return listed([f"{100 * right.mean():.1f}" for right in outcomes(method, attack, level).values()])
        if " of " in form:
            seed, n = map(int, form.split(" of "))
            return f"{100 * outcomes(method, attack, level)[seed][:n].mean():.1f}"
        forms = {"±": "{accuracy:.1f} ± {std:.1f}", "[]": "[{low:.1f}, {high:.1f}]"}
        return forms.get(form, f"{{accuracy:{form or '.1f'}}}").format(
            **(tables.measure(*runs(method, attack, level)) or {})
        )

    return re.sub(r"\{([^}]+)\}", number, sentence)


@pytest.mark.parametrize(("where", "cell", "sentence"), FINDINGS)
def test_numbers_are_the_records(where: str, cell: str, sentence: str) -> None:
    assert fill(cell, sentence) in " ".join((ROOT / where).read_text().split())


# (block, backbone, n, sentence): I-SCE and SCE, the median and the 5 % quantile of the share of the movement that lies along the logits.
SHARES = [
    ("mnist", "lenet5", 1000, "{isce:.3f} with I-SCE's LeNet-5 on MNIST and {sce:.3f} with SCE's (5 % quantiles: {isce_low:.3f} and {sce_low:.3f}; n = {n:,})"),
    ("mnist", "resnet32", 200, "with ResNet-32 on MNIST {isce:.3f} and {sce:.3f} ({isce_low:.3f} and {sce_low:.3f}; n = {n:,})"),
    ("cifar10", "resnet32", 200, "with ResNet-32 on CIFAR-10 {isce:.3f} and {sce:.3f} ({isce_low:.3f} and {sce_low:.3f}; n = {n:,}; seed 0 everywhere;"),
]  # fmt: skip


@pytest.mark.parametrize(("block", "backbone", "n", "sentence"), SHARES)
def test_the_share_of_the_movement_that_lies_along_the_logits(block: str, backbone: str, n: int, sentence: str) -> None:
    numbers = {}
    for method in ("isce", "sce"):
        found = record.find(profiles.load("full").spec(block, backbone, method).folder / "theory.json")
        assert found is not None
        assert found["n"] == n
        numbers[f"{method}_low"], numbers[method], _ = found["radial"]
    assert sentence.format(n=n, **numbers) in " ".join((ROOT / "results" / "README.md").read_text().split())


def test_the_intervals_of_the_trained_networks() -> None:
    found = [
        record.find(profiles.load("full").spec("mnist", "lenet5", m).folder / "theory.json") for m in ("sce", "isce")
    ]
    assert all(found)
    length, other = (done["intervals"][key] for done, key in zip(found, ("L", "L_I"), strict=True))  # type: ignore[index]
    text = " ".join((ROOT / "results" / "README.md").read_text().split())
    assert f"on average SCE's L is {length:.3f} and I-SCE's L_I {other:.3f} (LeNet-5, MNIST)" in text
    there = found[1]["at_sce"]  # type: ignore[index]
    assert (
        "is right on {right:.1f} % of {pairs} images, its probability hardly falls, and L_I is {L_I:.3f} on average, "
        "longer than L for {longer:.1f} %".format(**there)
    ) in text


def test_where_the_features_of_figure_1_move() -> None:
    spec = profiles.load("cpu").spec
    sce, isce = (
        record.read_json(record.committed(spec("mnist", "lenet5", m, embedding_dim=2).folder) / "inference_region.json")
        or {}
        for m in ("sce", "isce")
    )
    text = " ".join((ROOT / "results" / "README.md").read_text().split())
    moved, outside, right = "moved inwards, %", "off the clean data, %", "accuracy on the whole test set, %"
    for said in (
        f"{sce[moved]:.1f} % (SCE) and {isce[moved]:.1f} % (I-SCE) of {sce['n']:,} move inwards",
        f"{sce[outside]:.1f} and {isce[outside]:.1f} % end outside of the clean data",
        f"is right on {isce[right]:.1f} % of all clean test images, SCE on {sce[right]:.1f} %",
    ):
        assert said in text


def test_which_checks_of_gradient_masking_fail() -> None:
    text = (ROOT / "results" / "README.md").read_text()
    for method in methods.parse("all"):
        folder = record.committed(profiles.load("cpu").spec("mnist", "lenet5", method).folder) / "checks"
        (found,) = map(record.read_json, folder.glob("*.json"))
        assert found is not None
        failed = ", ".join(check["name"] for check in found["checks"] if check["passed"] is False)
        of = sum(check["passed"] is not None for check in found["checks"])
        assert f"\n| {methods.get(method).label} | {failed} | {of} |\n" in text


def test_how_far_the_scripts_deepfool_goes() -> None:
    def moved(method: str) -> str:
        found = find(profiles.load("cpu").evaluation("mnist", "lenet5", method, "as_coded_df_10"))
        assert found is not None
        return f"{found['results'][0]['norm']:.1f}"

    sentence = f"the median image moves by {moved('sce')} with SCE (n = 2,000), {moved('at')} with AT, {moved('isce')} with I-SCE and {moved('sce_normalized')} with the normalised SCE"
    assert sentence in " ".join((ROOT / "results" / "README.md").read_text().split())


def test_the_readme_counts_the_verdicts() -> None:
    rows = re.findall(r"^\| C\d+ .+$", (ROOT / "results" / "README.md").read_text(), re.MULTILINE)
    verdicts = [row.split("|")[4].strip() for row in rows]  # of the profile full, as written
    words = {1: "one", 2: "two", 9: "nine"}
    stand, part, fails, open_ = (words[verdicts.count(v)] for v in ("stands", "stands in part", "fails", "undecided"))
    sentence = f"**Of the paper's {len(rows)} claims**, as it states them and after full training, {stand} stand, {part} stand in part, {fails} fails, {open_} is undecided"
    assert sentence in " ".join((ROOT / "README.md").read_text().split())

    attacked = {row.split("|")[1].strip(): row.split("|")[5].strip() for row in rows}  # properly attacked
    said = {"fails": "*fail*", "stands in part": "*stand in part*", "undecided": "are *undecided*"}
    of = {verdict: [claim for claim in attacked if attacked[claim] == verdict] for verdict in said}
    parts = [f"{' and '.join([', '.join(of[v][:-1]), of[v][-1]])} {words}" for v, words in said.items() if of[v]]
    assert f"* *Properly attacked* (arm C), {', '.join(parts)}." in " ".join((ROOT / "README.md").read_text().split())


def test_the_claim_that_hangs_on_one_comparison() -> None:
    text, cpu, full = (
        " ".join((ROOT / "results" / name).read_text().split()) for name in ("README.md", "cpu.md", "full.md")
    )
    sentence = r"C5 as written hangs on one comparison: it won (\d+) of (\d+), under \*cpu\* and under \*full\* alike, and over half is asked for."
    won, of = re.search(sentence, text).groups()  # type: ignore[union-attr]
    for ledger in (cpu, full):
        assert re.search(rf"\| C5 \| B \|[^|]+\|[^|]+\| \(1, 2\) won {won}, lost \d+ of {of} comparisons", ledger)
    assert 2 * (int(won) - 1) <= int(of) < 2 * int(won)


def test_which_comparisons_simba_loses() -> None:
    text, full = (" ".join((ROOT / "results" / name).read_text().split()) for name in ("README.md", "full.md"))
    count = re.search(r"\| C4 \| B \|[^|]+\|[^|]+\| (won \d+, lost \d+ of \d+ comparisons)", full)
    assert count is not None
    assert (
        f"* C4: under SimBA I-SCE {count[1]}: it is behind MMC, label smoothing, Random and AT on both data sets, and behind L-GM on CIFAR-10."
        in text
    )
    profile = profiles.load("full")
    for block, ahead in (("mnist", set()), ("cifar10", {"lgm"})):
        for at in (0, 1):
            right = {
                method: tables.outcomes_of(profile.over_seeds(block, "resnet32", method, "simba"), at)
                for method in paper.METHODS
            }
            own = right.pop("isce")
            better = {m for m, found in right.items() if all(a.mean() < b.mean() for a, b in paired(own, found))}
            assert better == {"mmc", "label_smoothing", "random", "at"} | ahead


def test_what_the_verdicts_under_proper_attack_hang_on() -> None:
    text, profile = " ".join((ROOT / "results" / "README.md").read_text().split()), profiles.load("full")
    rivals = [name for name in paper.METHODS if name != "isce"]
    found = verdicts.duels(verdicts.cases(profile, "C", [1, 2, 3], "any"), rivals)
    radii = {f"{block} resnet32, ε = {min(profile.eps[block]):g}" for block in ("mnist", "cifar10")}
    small, large = ([d for d in found if (d.case in radii) == smaller] for smaller in (True, False))
    lost = [d.rival for d in large if d.winner < 0]
    assert (len(large), sum(d.ours == d.theirs == 0 for d in large), lost) == (16, 14, ["at", "at"])
    assert (
        "At the larger radius 14 comparisons are 0 against 0, and AT wins two. Two of the 14 are with Random," in text
    )
    won, behind = (sum(d.winner == sign for d in small) for sign in (1, -1))
    assert (
        f"The smaller radius alone gives {won} won and {behind} lost of {len(small)}, and C1 and C4 undecided" in text
    )
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"at the smaller one I-SCE won {won} and lost {behind} of {len(small)}" in readme
    without_random = [d for d in found if d.rival != "random"]
    assert len(found) - len(without_random) == 2
    for known in (verdicts.Known(small, 16 - len(small)), verdicts.Known(without_random, 32 - len(without_random))):
        assert verdicts.bounded(verdicts.most, known)[0] == verdicts.UNDECIDED
    (c2,) = [d for d in small if d.rival == "sce" and "mnist" in d.case]
    assert f"ahead at ε = 1 with every seed, by {c2.points:.1f} points on average (n = {c2.n};" in text
    (lgm,) = [d for d in small if d.rival == "lgm" and "cifar10" in d.case]
    ours, theirs = tables.worst_outcomes(profile, "cifar10", "resnet32", 0.25)(["isce", "lgm"])
    assert (
        f"(L-GM is ahead of I-SCE by {(theirs[0] & ~ours[0]).sum()} images to {(ours[0] & ~theirs[0]).sum()})" in text
    )
    assert lgm.winner < 0
    simba = verdicts.duels(verdicts.cases(profile, "B", [4], "simba"), [r for r in rivals if r != "random"])
    count = [sum(d.winner == sign for d in simba) for sign in (1, -1)]
    assert f"without Random it would be {count[0]} and {count[1]} of {len(simba)}, and *in part*" in text
    assert verdicts.most(simba) == verdicts.PART
    arcface = verdicts.duels(verdicts.cases(profile, "C", range(1, 8), "any"), ["arcface"])
    ahead = [d.case for d in arcface if d.winner > 0]
    assert (len(arcface), ahead) == (8, ["mnist resnet32, ε = 1", "cifar10 cnn8, ε = 0.25"])
    assert verdicts.most(arcface) == verdicts.PART
    assert (
        verdicts.most([d for d in arcface if d.case != ahead[0]] + [verdicts.Duel("", "", 0, 0, 0)]) == verdicts.FAILS
    )


def test_what_is_quoted_of_table_7() -> None:
    """The paper's rows, by column: two levels of MNIST, two of CIFAR-10, each after 10 and 50 iterations."""
    keys = [column.key for column in paper.TABLES[7].columns if column.eps_index is not None]
    isce, random, at = (
        [f"{paper.TABLES[7].value(method, key):.2f}" for key in keys] for method in ("isce", "random", "at")
    )
    text, readme = (" ".join((ROOT / name).read_text().split()) for name in ("results/README.md", "README.md"))
    assert f"unlike there ({isce[1]} and {isce[3]} against {random[1]} and {random[3]} %)" in text
    assert f"AT above I-SCE in every column under attack ({listed(at[4:])} against {listed(isce[4:])} %)" in text
    assert all(float(a) > float(b) for a, b in zip(at[4:], isce[4:], strict=True))
    assert f"In the paper's Table 7 I-SCE has {isce[0]} % after 10 iterations." in readme
    assert f"for I-SCE on MNIST its levels differ more ({isce[0]} and {isce[2]} % after 10 iterations)" in text
    assert (
        f"(MNIST, as we read it: {at[0]} and {at[2]}, {at[1]} and {at[3]} %; CIFAR-10: {at[4]} and {at[6]}, {at[5]} and {at[7]})"
        in text
    )
    pairs = [(low, high) for low, high in ((0, 2), (1, 3), (4, 6), (5, 7)) if float(random[low]) < float(random[high])]
    rises = ", ".join(f"{random[low]} and {random[high]}" for low, high in pairs)
    assert f"Random rises with the level in three of four pairs ({rises} %)" in text
    assert len(pairs) == 3


def test_where_c11_breaks_is_the_ledgers() -> None:
    broken, of = re.search(
        r"lengths 0.5 to 6, s = 2: L_I > L in all but (\d+) of (\d+)", (ROOT / "results" / "cpu.md").read_text()
    ).groups()  # type: ignore[union-attr]
    text = " ".join((ROOT / "results" / "README.md").read_text().split())
    assert f"fails at s = 2 for {broken} of {int(of):,} pairs with z > 0 at both ends" in text


def test_how_much_better_networks_know_their_training_images() -> None:
    profile = profiles.load("full")

    def gap(backbone: str, method: str) -> str:
        found = [find(e) for e in profile.everything("cifar10", backbone, method) if e.split != "validation"]
        right, test = (done["results"][0]["accuracy"] for done in found if done)
        return f"{right:.1f} and {test:.1f}"

    own, sce, resnet = gap("cnn8", "isce"), gap("cnn8", "sce"), gap("resnet32", "isce")
    sentence = f"right on {own} % of the training and test images of CIFAR-10 with I-SCE, and on {sce} % with SCE; ResNet-32 on {resnet} % with I-SCE"
    assert sentence in " ".join((ROOT / "results" / "README.md").read_text().split())


def test_clean_accuracies_beside_those_of_table_7() -> None:
    long, short = (profiles.load(name) for name in ("full", "cpu"))

    def clean(profile: profiles.Profile, block: str, backbone: str, method: str) -> str:
        found = tables.measure(profile.over_seeds(block, backbone, method, "clean"))
        return f"{found['accuracy']:.1f}" if found else "not run"

    lenet = {method: clean(short, "mnist", "lenet5", method) for method in ("isce", "random", "at")}
    cnn = {method: clean(long, "cifar10", "cnn8", method) for method in ("isce", "random", "at")}
    text, readme = (" ".join((ROOT / name).read_text().split()) for name in ("results/README.md", "README.md"))
    assert (
        f"Ours: I-SCE {lenet['isce']} and {cnn['isce']}, Random {lenet['random']} and {cnn['random']}, AT {lenet['at']} and {cnn['at']}."
        in text
    )
    theirs = {m: [paper.TABLES[7].value(m, f"{block}:clean") for block in ("mnist", "cifar10")] for m in lenet}
    words = ["{} and {} %".format(*theirs["isce"]), *("{} and {}".format(*theirs[m]) for m in ("random", "at"))]
    assert "I-SCE {} (LeNet-5; 8-layer network), Random {}, AT {}.".format(*words) in text
    gaps = [f"{float(own) - float(other):.1f}" for own, other in zip(theirs["isce"], theirs["at"], strict=True)]
    assert f"in its Table 7 AT is {gaps[0]} and {gaps[1]} points below I-SCE" in readme


def test_what_simba_leaves_after_ten_times_the_queries() -> None:
    left, after_300 = {}, {}
    for asked in profiles.load("cpu").longer_simba("mnist", "lenet5"):
        found = find(asked)
        assert found is not None
        assert (found["n"], asked.queries) == (1000, 3000)
        (result,) = found["results"]
        key, curve = (asked.spec.method, asked.attack), result["curve"]
        left[key] = f"{result['accuracy']:.1f}"
        after_300[key] = f"{100 * curve['correct'][curve['queries'].index(300)] / found['n']:.1f}"
    sce, isce, norm_only = (left[method, "simba"] for method in ("sce", "isce", "norm_only"))
    raw = [left[method, "simba@raw"] for method in ("isce", "norm_only")]
    text, readme = (" ".join((ROOT / name).read_text().split()) for name in ("results/README.md", "README.md"))
    assert (
        f"it leaves {sce} % of SCE, {isce} % of I-SCE and {norm_only} % of normalisation alone; on the raw logits {raw[0]} and {raw[1]} %."
        in text
    )
    assert f"After 300 queries SCE has {after_300['sce', 'simba']} and I-SCE {after_300['isce', 'simba']} %" in text
    assert (
        f"it leaves {isce} % of I-SCE's LeNet-5 on MNIST and nothing of SCE's, and on the raw logits nothing of either"
        in readme
    )
    assert (sce, raw[0]) == ("0.0", "0.0")


def test_by_table_7_itself_i_sce_is_not_near_the_best_under_deepfool() -> None:
    keys = [column.key for column in paper.TABLES[7].columns if column.eps_index is not None]
    isce, *others = ([float(paper.TABLES[7].value(m, key)) for key in keys] for m in ("isce", "random", "at"))
    below = sum(own < max(rest) - 5 for own, *rest in zip(isce, *others, strict=True))
    assert (below, len(keys)) == (6, 8)
    assert "better of Random and AT in six of eight columns" in " ".join(
        (ROOT / "results/README.md").read_text().split()
    )


def test_what_training_costs() -> None:
    def seconds(name: str, block: str, backbone: str, method: str) -> str:
        found = record.find(profiles.load(name).spec(block, backbone, method).folder / "result.json")
        assert found is not None
        return f"{found['provenance']['seconds']:,.0f}"

    nets = [("cpu", "mnist", "lenet5"), ("cpu", "cifar10", "cnn8"), ("cpu", "mnist", "resnet32")]
    lenet, cnn, resnet = ([seconds(*net, method) for method in ("at", "sce")] for net in nets)
    gpu = [seconds("full", "cifar10", "resnet32", method) for method in ("isce", "sce")]
    sentence = (
        f"it took {lenet[0]} s where SCE took {lenet[1]} (LeNet-5, 20 epochs), {cnn[0]} s against {cnn[1]} (8-layer CNN, 5 epochs) "
        f"and {resnet[0]} s against {resnet[1]} (ResNet-32 on MNIST, 2 epochs), on one core; I-SCE costs what SCE does ({gpu[0]} and {gpu[1]} s,"
    )
    assert sentence in " ".join((ROOT / "results" / "README.md").read_text().split())


def fill_figure_3(cell: str, sentence: str) -> str:
    """The sentence with Figure 3's numbers in the place of its fields."""
    name, block, backbone = cell.split()
    profile = profiles.load(name)

    def outcomes(attack: str, split: str, which: int) -> dict[tuple[float, float, int], np.ndarray]:
        """By (s, m, seed), the images of the grid (which = 0) or of the seeds (1) that are right; those that were run."""
        asked = profile.ablation(block, backbone, attack, split)[which]
        found = {(e.spec.options["s"], e.spec.options["m"], e.spec.seed): find(e) for e in asked}
        return {key: unpack(r["results"][0]["correct"], r["n"]) for key, r in found.items() if r is not None}

    def number(field: re.Match[str]) -> str:
        attack, what = field[1].split()
        grid, seeds = (outcomes(attack, "validation", which) for which in (0, 1))
        assert (len(grid), len(seeds)) == (25, 10), f"incomplete: {cell} {attack}"
        best = max(grid, key=lambda key: grid[key].mean())
        if what == "sce":
            like = profile.ablation(block, backbone, attack)[0][0]
            plain = find(dataclasses.replace(like, spec=profile.ablation_spec(block, backbone, "sce")))
            return f"{plain['results'][0]['accuracy']:.1f}" if plain else "not run"
        if what in {"p", "least"}:
            others = [right for key, right in seeds.items() if key not in grid]
            words, p = ablation_test(np.stack([*grid.values()]), np.stack(others), (5, 5))
            least = re.search(r"from 1\.8 times the seeds' sd on, ([\d.]+) points", words)
            assert least
            return f"{p:.2g}" if what == "p" else f"{float(least[1]):.1f}"
        if what == "sd":
            return f"{np.std([100 * right.mean() for right in grid.values()], ddof=1):.1f}"
        if what == "best":
            return f"s = {best[0]:g}, m = {best[1]:g}"
        if what == "own":
            return f"{100 * grid[1.0, 0.1, 0].mean():.1f}"
        if what == "means":
            return listed([f"{100 * np.mean([*of.values()]):.1f}" for of in (seeds, grid)])
        if what == "test":
            on_test = outcomes(attack, "test", 0)
            return f"{100 * on_test[best].mean():.1f} against {100 * on_test[1.0, 0.1, 0].mean():.1f}"
        values = [100 * right.mean() for right in {"grid": grid, "seeds": seeds}[what].values()]
        return f"{min(values):.1f} to {max(values):.1f}"

    return re.sub(r"\{([^}]+)\}", number, sentence)


@pytest.mark.parametrize(("where", "cell", "sentence"), FIGURE_3)
def test_numbers_of_figure_3_are_the_records(where: str, cell: str, sentence: str) -> None:
    assert fill_figure_3(cell, sentence) in " ".join((ROOT / where).read_text().split())


def fill_figure_4(cell: str, sentence: str) -> str:
    """The sentence with Figure 4's numbers in the place of its fields."""
    name, block = cell.split()
    profile = profiles.load(name)

    def number(field: re.Match[str]) -> str:
        method, what, *level = field[1].split()
        asked = profile.embedding(block, method)
        kind = {"clean": "result.json", "raw": f"attacks/{asked.path.name}"}.get(what, "separation.json")
        found = record.find(asked.spec.folder / kind)
        assert found is not None, f"no record of {cell}: {method} {what}"
        if what == "raw":
            return listed([f"{result['accuracy']:.1f}" for result in found["results"][-1 if level else 0 :]])
        if what == "clean":
            return f"{found['metrics']['test_accuracy']:.1f}"
        return {"n": "{:,}", "nearest_mean": "{:.1f}"}.get(what, "{:.2f}").format(found[what])

    return re.sub(r"\{([^}]+)\}", number, sentence)


@pytest.mark.parametrize(("where", "cell", "sentence"), FIGURE_4)
def test_numbers_of_figure_4_are_the_records(where: str, cell: str, sentence: str) -> None:
    assert fill_figure_4(cell, sentence) in " ".join((ROOT / where).read_text().split())
